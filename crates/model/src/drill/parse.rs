//! Reads a drill's text and reports every mistake at once.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    ACT_AT_MAX, ACTS_MAX, Act, DRILL_BYTES_MAX, Deed, Drill, DrillPart, Expect, LinkDeed, Losses, Mistake,
    Mistakes, PartVerb, REGIONS, RegionVerb, Since, Subject, Subjects, WriterFate, deed::RATES, line::Line,
};
use crate::{
    RegionName,
    spec::{parse_duration, suggest::either},
};

/// Without a line `regions`: some region must be there to take over.
const REGIONS_UNLESS_SAID: RangeInclusive<usize> = 2..=*REGIONS.end();
/// The first word of a line.
const LINES: [&str; 4] = ["drill", "regions", "at", "expect"];
/// The first word of an act.
const VERBS: [&str; 17] = [
    "kill",
    "crash",
    "start",
    "stall",
    "freeze",
    "thaw",
    "cut",
    "reset",
    "slow",
    "heal",
    "skew",
    "fill",
    "free",
    "switchover",
    "failback",
    "drain",
    "undrain",
];

/// Reads a text. `name` is its file's, for the mistakes to show.
///
/// # Errors
/// Every mistake in it, with its line and how to mend it.
pub fn parse(name: &str, text: &str) -> Result<Drill, Mistakes> {
    if text.len() > DRILL_BYTES_MAX {
        let message = format!("the text has {} bytes; a drill has at most {DRILL_BYTES_MAX}", text.len());
        let mistake = Mistake { line: 1, span: (0, 0), message, help: "is this the right file?".into() };
        return Err(Mistakes::new(name, "", vec![mistake]));
    }
    let mut reader = Reader::default();
    let mut start = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let code = line.trim_end_matches('\n');
        reader.line(Line::new(index + 1, start, code), code);
        start += line.len();
    }
    reader.whole();
    match reader {
        Reader { name: Some(drill), says, regions, acts, expects, mistakes, .. } if mistakes.is_empty() => {
            let regions = regions.unwrap_or(REGIONS_UNLESS_SAID);
            Ok(Drill { name: drill, says, regions, acts, expects })
        }
        reader => Err(Mistakes::new(name, text, reader.mistakes)),
    }
}

#[derive(Default)]
struct Reader {
    name: Option<String>,
    says: Vec<String>,
    regions: Option<RangeInclusive<usize>>,
    acts: Vec<Act>,
    expects: Vec<Expect>,
    mistakes: Vec<Mistake>,
    /// A line that is no comment has been read.
    begun: bool,
    /// The highest replica named, and where.
    replicas: Vec<(usize, Mistake)>,
}

impl Reader {
    fn line(&mut self, mut line: Line<'_>, text: &str) {
        if line.is_empty() {
            if let Some(comment) = text.trim_start().strip_prefix('#').filter(|_| !self.begun) {
                self.says.push(comment.trim().to_owned());
            }
            return;
        }
        self.begun = true;
        if let Err(mistake) = self.read(&mut line).and_then(|()| line.end()) {
            self.mistakes.push(mistake);
        }
    }

    fn read(&mut self, line: &mut Line<'_>) -> Result<(), Mistake> {
        match line.word("", "")? {
            "drill" => self.drill(line),
            "regions" => self.regions(line),
            "at" => self.at(line),
            "expect" => self.expect(line),
            other => Err(line.unknown("the begin of a line", other, &LINES)),
        }
    }

    fn drill(&mut self, line: &mut Line<'_>) -> Result<(), Mistake> {
        let help = "write a word of letters, digits and hyphens, as in `drill slow-link`";
        let name = line.word("the drill's name", help)?;
        if name.parse::<RegionName>().is_err() {
            return Err(line.mistake(format!("`{name}` is not a drill's name"), help));
        }
        if self.name.replace(name.to_owned()).is_some() {
            return Err(line.mistake("the drill is named twice".into(), "keep one of the `drill` lines"));
        }
        Ok(())
    }

    fn regions(&mut self, line: &mut Line<'_>) -> Result<(), Mistake> {
        let help = "write how many data regions it suits, as in `regions 3` or `regions 2..5`";
        let found = line.word("a number of regions", help)?;
        let (least, most) = found.split_once("..").unwrap_or((found, found));
        let range = match (least.parse::<usize>(), most.parse::<usize>()) {
            (Ok(least), Ok(most)) if least <= most && REGIONS.contains(&least) && REGIONS.contains(&most) => {
                least..=most
            }
            _ => return Err(line.mistake(format!("`{found}` is not a number of regions from 1 to 9"), help)),
        };
        if self.regions.replace(range).is_some() {
            return Err(line.mistake("the number of regions is said twice".into(), "keep one of the lines"));
        }
        Ok(())
    }

    fn at(&mut self, line: &mut Line<'_>) -> Result<(), Mistake> {
        let at = line.time()?;
        let before = self.acts.last().map(|act| act.at);
        let wrong = match before {
            _ if at > ACT_AT_MAX => Some(("the time is later than a day", "a drill is over within a day")),
            None if at > Duration::ZERO => Some((
                "the first act is not at 0s",
                "times are counted from the first act, which waits until every client works",
            )),
            Some(before) if at < before => {
                Some(("the time is earlier than the line before", "write the acts in order of their time"))
            }
            _ if self.acts.len() >= ACTS_MAX => {
                Some(("there are more than 1000 acts", "make two drills of it"))
            }
            _ => None,
        };
        let wrong = wrong.map(|(what, help)| line.mistake(what.into(), help));
        let deed = self.deed(line)?;
        self.acts.push(Act { at: at.max(before.unwrap_or_default()), deed });
        wrong.map_or(Ok(()), Err)
    }

    fn deed(&mut self, line: &mut Line<'_>) -> Result<Deed, Mistake> {
        let verb = line.word("what to do", &format!("write one of {}", VERBS.join(", ")))?;
        let region = line.peek() == Some("region");
        match verb {
            "heal" if line.peek().is_none() => Ok(Deed::Heal),
            "failback" => Ok(Deed::Failback),
            "switchover" => {
                line.exactly("to", "write `switchover to replica`")?;
                let to = line.subject()?;
                self.note(line, &Subjects::one(to.clone()));
                if matches!(to, Subject::Others | Subject::Witness) {
                    return Err(line.mistake(
                        format!("`{to}` cannot take the right to write"),
                        "name one region with data, as in `switchover to replica`",
                    ));
                }
                Ok(Deed::Switchover { to })
            }
            "drain" | "undrain" => {
                line.exactly("region", "write `drain region replica`")?;
                Ok(Deed::Drain { who: self.data_regions(line)?, out: verb == "drain" })
            }
            "cut" | "reset" | "slow" | "heal" => self.link(line, verb),
            "skew" => {
                line.exactly("clock", "write `skew clock in writer by +2s`")?;
                line.exactly("in", "write `skew clock in writer by +2s`")?;
                let who = self.data_regions(line)?;
                line.exactly("by", "write `skew clock in writer by +2s`")?;
                Ok(Deed::Clock { who, ahead_ms: ahead(line)? })
            }
            "fill" | "free" => {
                line.exactly("disk", "write `fill disk in writer`")?;
                line.exactly("in", "write `fill disk in writer`")?;
                Ok(Deed::Disk { who: self.data_regions(line)?, full: verb == "fill" })
            }
            _ => {
                let of_region = RegionVerb::ALL.into_iter().find(|known| known.word() == verb);
                let of_part = PartVerb::ALL.into_iter().find(|known| known.word() == verb);
                match (of_region.filter(|_| region), of_part) {
                    (Some(verb), _) => {
                        line.exactly("region", "")?;
                        let who = line.subjects()?;
                        self.note(line, &who);
                        Ok(Deed::Region { verb, who })
                    }
                    (None, Some(verb)) if !region => self.part(line, verb),
                    (None, Some(verb)) => Err(line.mistake(
                        format!("a region cannot be told to {}", verb.word()),
                        format!("name a process, as in `{} agent in writer`", verb.word()),
                    )),
                    (None, None) if of_region.is_some() => Err(line.mistake(
                        format!("`{verb}` is for a region"),
                        format!("write `{verb} region writer`"),
                    )),
                    (None, None) => Err(line.unknown("something a drill can do", verb, &VERBS)),
                }
            }
        }
    }

    fn part(&mut self, line: &mut Line<'_>, verb: PartVerb) -> Result<Deed, Mistake> {
        let parts = DrillPart::ALL.map(|part| (part.word(), part));
        let part = line.one_of("a process of a region", &parts)?;
        line.exactly("in", &format!("write `{} {} in writer`", verb.word(), part.word()))?;
        let who = line.subjects()?;
        self.note(line, &who);
        if who.has_witness() && part != DrillPart::Etcd {
            return Err(line.mistake(
                format!("the witness has no {}", part.word()),
                "it has a member of the lease store only: write `etcd`",
            ));
        }
        Ok(Deed::Part { verb, part, who })
    }

    fn link(&mut self, line: &mut Line<'_>, verb: &str) -> Result<Deed, Mistake> {
        let example = format!("write `{verb} link writer <-> others`");
        line.exactly("link", &example)?;
        let from = line.subjects()?;
        let both = line.one_of("an arrow", &[("<->", true), ("->", false)])?;
        let to = line.subjects()?;
        self.note(line, &from);
        self.note(line, &to);
        if let Some(twice) = from.0.iter().find(|subject| to.0.contains(subject)) {
            return Err(line.mistake(
                format!("`{twice}` stands on both sides of the link"),
                "name different regions before and after the arrow",
            ));
        }
        let what = match verb {
            "cut" => LinkDeed::Cut,
            "reset" => LinkDeed::Reset,
            "slow" => {
                line.exactly("by", "write `slow link writer <-> others by 200ms`")?;
                let by = line.time()?;
                LinkDeed::Slow { by, rate: line.takes("rate").then(|| rate(line)).transpose()? }
            }
            _ => LinkDeed::Heal,
        };
        Ok(Deed::Link { what, from, to, both })
    }

    fn data_regions(&mut self, line: &mut Line<'_>) -> Result<Subjects, Mistake> {
        let who = line.subjects()?;
        self.note(line, &who);
        if who.has_witness() {
            return Err(line.mistake("the witness has no database".into(), "name a region with data"));
        }
        Ok(who)
    }

    /// Remembers how many replicas an act takes for granted.
    fn note(&mut self, line: &Line<'_>, who: &Subjects) {
        for subject in &who.0 {
            if let Subject::Replica(number) = subject {
                let message = format!("`{subject}` needs at least {} regions", number + 1);
                self.replicas.push((*number, line.mistake(message, "say so on the line `regions`")));
            }
        }
    }

    fn expect(&mut self, line: &mut Line<'_>) -> Result<(), Mistake> {
        let what = line.word("what is expected", "write `expect writes within 5s`")?;
        let expect = match what {
            "writes" | "reads" => {
                line.exactly("within", &format!("write `expect {what} within 5s`"))?;
                let within = line.time()?;
                let from = if line.takes("after") {
                    line.exactly("heal", "write `after heal`: counted from the last act")?;
                    Since::Heal
                } else {
                    Since::Begin
                };
                if what == "writes" {
                    Expect::Writes { within, from }
                } else {
                    Expect::Reads { within, from }
                }
            }
            "two-writers" => {
                line.exactly("never", "write `expect two-writers never`")?;
                Expect::TwoWritersNever
            }
            "lost" => {
                let losses = [("none", Losses::None), ("counted", Losses::Counted)];
                Expect::Lost(line.one_of("what may be lost", &losses)?)
            }
            "writer" => {
                let fates = [("stays", WriterFate::Stays), ("moves", WriterFate::Moves)];
                Expect::Writer(line.one_of("what may become of the writer", &fates)?)
            }
            other => {
                let known = ["writes", "reads", "two-writers", "lost", "writer"];
                return Err(line.unknown("something to expect", other, &known));
            }
        };
        if self.expects.iter().any(|known| same_matter(known, &expect)) {
            return Err(line.mistake(format!("`{what}` is expected twice"), "keep one of the lines"));
        }
        self.expects.push(expect);
        Ok(())
    }

    /// What only the whole text shows.
    fn whole(&mut self) {
        let least = *self.regions.as_ref().unwrap_or(&REGIONS_UNLESS_SAID).start();
        let short = std::mem::take(&mut self.replicas).into_iter().filter(|(number, _)| *number >= least);
        self.mistakes.extend(short.map(|(_, mistake)| mistake));
        let mut missing = |what: &str, help: &str| {
            let mistake = Mistake { line: 1, span: (0, 0), message: what.to_owned(), help: help.to_owned() };
            self.mistakes.push(mistake);
        };
        if self.name.is_none() {
            missing("the drill has no name", "write a line like `drill slow-link`");
        }
        if self.acts.is_empty() {
            missing("nothing is done", "write a line like `at 0s cut link writer <-> others`");
        }
    }
}

fn same_matter(one: &Expect, other: &Expect) -> bool {
    use Expect::{Lost, Reads, TwoWritersNever, Writer, Writes};
    match (one, other) {
        (Writes { from: one, .. }, Writes { from: other, .. })
        | (Reads { from: one, .. }, Reads { from: other, .. }) => one == other,
        (TwoWritersNever, TwoWritersNever) | (Lost(_), Lost(_)) | (Writer(_), Writer(_)) => true,
        _ => false,
    }
}

/// `+2s`, `-500ms`: milliseconds ahead.
fn ahead(line: &mut Line<'_>) -> Result<i64, Mistake> {
    let help = "write how far ahead or behind, as in +2s or -500ms; +0s sets it right";
    let found = line.word("a time with a sign", help)?;
    let signed = found.strip_prefix('+').map(|rest| (1, rest));
    let signed = signed.or_else(|| found.strip_prefix('-').map(|rest| (-1, rest)));
    let ms = signed.and_then(|(sign, rest)| {
        let off = parse_duration(rest).filter(|off| off.subsec_nanos().is_multiple_of(1_000_000))?;
        Some(sign * i64::try_from(off.as_millis()).ok()?)
    });
    ms.ok_or_else(|| line.mistake(format!("`{found}` is not a time with a sign"), help))
}

/// `1MB/s`: bytes a second.
fn rate(line: &mut Line<'_>) -> Result<u64, Mistake> {
    let units: Vec<&str> = RATES.iter().map(|(unit, _)| *unit).collect();
    let help = format!("write a whole number and {}, as in 500kB/s", either(&units));
    let found = line.word("a rate", &help)?;
    let parsed = RATES.iter().find_map(|(unit, bytes)| {
        let number: u64 = found.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*bytes).filter(|rate| *rate > 0)
    });
    parsed.ok_or_else(|| line.mistake(format!("`{found}` is not a rate"), help))
}
