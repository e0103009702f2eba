//! Shows what the parts of the lab have written, each line with where it comes from.

use std::{
    fs::File,
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
    time::Duration,
};

use isles_lab::control::{LabState, PartState};
use isles_model::RegionName;

use crate::{
    cli::Global,
    outcome::{Exit, Failure, Outcome, say},
    running,
};

/// The most that is read of one log at a time, in bytes.
const READ_BYTES_MAX: u64 = 1 << 20;
/// How often `-f` looks for new lines.
const FOLLOW_EVERY: Duration = Duration::from_millis(200);

/// The arguments of `isles logs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only this region's.
    region: Option<RegionName>,
    /// Only this part's: postgres, etcd, agent, app-0 …
    part: Option<String>,
    /// Go on as new lines come.
    #[arg(short = 'F', long)]
    follow: bool,
    /// How many lines of each log.
    #[arg(short = 'n', long, value_name = "LINES", default_value_t = 20)]
    lines: usize,
}

/// Prints the ends of the logs, and with `--follow` what comes after.
pub(crate) fn run(global: &Global, args: &Args) -> Outcome {
    running::block_on(async {
        let (_, state) = running::lab(global).await?;
        let mut logs = chosen(&state, args)?;
        for log in &mut logs {
            log.show_end(args.lines, global.json);
        }
        if !args.follow {
            return Ok(Exit::Done);
        }
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            for log in &mut logs {
                log.show_new(global.json);
            }
        }
    })
}

/// One log and how far it has been shown.
struct Log {
    region: RegionName,
    part: String,
    path: PathBuf,
    shown: u64,
    begun: String,
}

fn chosen(state: &LabState, args: &Args) -> Result<Vec<Log>, Failure> {
    let regions = state.regions.iter().map(|region| (&region.region, &region.parts));
    let witness = state.witness.iter().map(|witness| (&witness.region, &witness.parts));
    let all = regions.chain(witness).flat_map(|(region, parts)| parts.iter().map(move |part| (region, part)));
    let fits = |region: &RegionName, part: &PartState| {
        args.region.as_ref().is_none_or(|wanted| wanted == region)
            && args.part.as_ref().is_none_or(|wanted| *wanted == part.part.to_string())
    };
    let log = |(region, part): (&RegionName, &PartState)| Log {
        region: region.clone(),
        part: part.part.to_string(),
        path: part.log.clone(),
        shown: 0,
        begun: String::new(),
    };
    let names: Vec<String> = all.clone().map(|(region, part)| format!("{region} {}", part.part)).collect();
    let chosen: Vec<Log> = all.filter(|(region, part)| fits(region, part)).map(log).collect();
    if chosen.is_empty() {
        return Err(Failure::usage("the lab has no such log", format!("it has: {}", names.join(", "))));
    }
    Ok(chosen)
}

impl Log {
    fn show_end(&mut self, lines_max: usize, json: bool) {
        let length = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        self.shown = length.saturating_sub(READ_BYTES_MAX);
        let text = self.read();
        let lines: Vec<&str> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(lines_max)) {
            self.print(line, json);
        }
    }

    fn show_new(&mut self, json: bool) {
        let length = std::fs::metadata(&self.path).map_or(0, |found| found.len());
        if length < self.shown {
            self.shown = 0;
        }
        let text = format!("{}{}", std::mem::take(&mut self.begun), self.read());
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let (lines, begun) = text.split_at(whole);
        for line in lines.lines() {
            self.print(line, json);
        }
        self.begun = begun.to_owned();
    }

    fn read(&mut self) -> String {
        let mut bytes = Vec::new();
        if let Ok(mut file) = File::open(&self.path) {
            let _ = file.seek(SeekFrom::Start(self.shown));
            let _ = file.take(READ_BYTES_MAX).read_to_end(&mut bytes);
        }
        self.shown += bytes.len() as u64;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn print(&self, line: &str, json: bool) {
        let Self { region, part, .. } = self;
        if json {
            say(&serde_json::json!({ "region": region, "part": part, "line": line }).to_string());
        } else {
            say(&format!("{region} {part:8} | {line}"));
        }
    }
}
