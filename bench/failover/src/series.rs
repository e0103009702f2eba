//! A series of trials: every system and every case once a round, so that what else the machine does meets all alike.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    auto_failover,
    case::Case,
    error::{BenchError, causes},
    host::POSTGRES_BIN,
    isles::Isles,
    patroni,
    results::{Machine, Results, Trial},
    system::System,
    trial::{self, Finding},
};

/// What is compared, and where the result goes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trials of every system in every case.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    trials: u32,
    /// The systems, separated by commas.
    #[arg(long, value_delimiter = ',', default_values_t = System::ALL, hide_default_value = true)]
    systems: Vec<System>,
    /// The cases, separated by commas.
    #[arg(long, value_delimiter = ',', ignore_case = true, default_values_t = Case::ALL, hide_default_value = true)]
    cases: Vec<Case>,
    /// The `isles` program; the one beside this program unless told otherwise.
    #[arg(long, value_name = "FILE")]
    isles: Option<PathBuf>,
    /// Where `results.json` and `results.md` are written, anew after every trial.
    #[arg(long, value_name = "DIR", default_value = "target/failover")]
    out: PathBuf,
    /// Keep every trial's logs in the output directory.
    #[arg(long)]
    logs: bool,
}

/// Runs the series and prints the table.
pub(crate) async fn run(args: &Args) -> Result<(), BenchError> {
    let isles = program(args)?;
    let file = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| BenchError::File { path, source }
    };
    fs::create_dir_all(&args.out).map_err(file(&args.out))?;
    let temp = std::env::temp_dir();
    // Because PostgreSQL's account must be able to pass, and Unix sockets need short paths.
    let scratch = tempfile::Builder::new().prefix("isles-bench-").tempdir_in(&temp).map_err(file(&temp))?;
    isles_lab::processes::make_dir(scratch.path(), 0o755, None).map_err(file(scratch.path()))?;
    let mut results = Results { machine: machine(&isles), trials: Vec::new() };
    for round in 1..=args.trials {
        for case in &args.cases {
            for system in &args.systems {
                let name = format!("{}-{case}-{round}", system.name());
                let dir = scratch.path().join("trial");
                isles_lab::processes::make_dir(&dir, 0o755, None).map_err(file(&dir))?;
                let logs = args.logs.then(|| args.out.join(&name));
                let found = one(*system, *case, &dir, scratch.path(), &isles, logs.as_deref()).await;
                fs::remove_dir_all(&dir).map_err(file(&dir))?;
                let trial = match found {
                    Ok(finding) => {
                        Trial { system: *system, case: *case, round, finding: Some(finding), failed: None }
                    }
                    Err(error @ (BenchError::NotRoot | BenchError::Busy | BenchError::Missing(_))) => {
                        return Err(error);
                    }
                    Err(error) => {
                        let failed = Some(causes(&error));
                        Trial { system: *system, case: *case, round, finding: None, failed }
                    }
                };
                eprintln!("{name}: {}", summary(&trial));
                results.trials.push(trial);
                write(&args.out, &results).map_err(file(&args.out))?;
            }
        }
    }
    println!("{}", results.markdown());
    Ok(())
}

async fn one(
    system: System,
    case: Case,
    dir: &Path,
    cache: &Path,
    isles: &Path,
    logs: Option<&Path>,
) -> Result<Finding, BenchError> {
    match system {
        System::Isles => trial::run(Isles::start(isles, dir, cache).await?, case, dir, logs).await,
        System::Patroni | System::PatroniTight => {
            let tight = system == System::PatroniTight;
            let times = if tight { patroni::Times::TIGHT } else { patroni::Times::DEFAULT };
            trial::run(patroni::start(dir, times)?, case, dir, logs).await
        }
        System::AutoFailover | System::AutoFailoverTight => {
            let tuned = system == System::AutoFailoverTight;
            trial::run(auto_failover::start(dir, tuned).await?, case, dir, logs).await
        }
    }
}

fn write(out: &Path, results: &Results) -> io::Result<()> {
    fs::write(out.join("results.json"), format!("{:#}\n", results.json()))?;
    fs::write(out.join("results.md"), results.markdown())
}

/// One line for whoever watches.
fn summary(trial: &Trial) -> String {
    if let Some(failed) = &trial.failed {
        return format!("not made: {failed}");
    }
    let Some(finding) = &trial.finding else { return "nothing".to_owned() };
    let time = finding.seconds.map_or_else(|| "nobody could write again".to_owned(), |s| format!("{s:.3} s"));
    let whole = finding.whole_after_seconds.map_or_else(|| "never".to_owned(), |s| format!("after {s:.1} s"));
    format!(
        "{time}; lost {} of {} outside, {} of {} inside; whole again {whole} {}",
        finding.lost_outside,
        finding.acknowledged_outside,
        finding.lost_inside,
        finding.acknowledged_inside,
        finding.notes.join("; ")
    )
}

fn program(args: &Args) -> Result<PathBuf, BenchError> {
    let beside = || std::env::current_exe().ok()?.parent().map(|dir| dir.join("isles"));
    let program = args.isles.clone().or_else(beside).ok_or(BenchError::Unclear("where isles is"))?;
    program.canonicalize().map_err(|_| BenchError::Missing(program))
}

fn machine(isles: &Path) -> Machine {
    let says = |program: &Path, args: &[&str]| {
        let output = Command::new(program).args(args).output().ok();
        let said = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        said.and_then(|said| said.lines().next().map(str::to_owned)).unwrap_or_default()
    };
    Machine {
        processors: std::thread::available_parallelism().map_or(0, usize::from),
        kernel: says("uname".as_ref(), &["-sr"]),
        postgres: says(&Path::new(POSTGRES_BIN).join("postgres"), &["--version"]),
        isles: says(isles, &["--version"]),
        patroni: says("patroni".as_ref(), &["--version"]),
        auto_failover: says("pg_autoctl".as_ref(), &["--version"]),
    }
}
