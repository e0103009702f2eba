//! The language of drills: every mistake is found at once, and what is written reads back the same.

#![allow(clippy::unwrap_used, reason = "the whole crate is a test")]

use std::time::Duration;

use isles_model::{
    RegionName,
    drill::{CATALOGUE, Deed, LinkDeed, Subject, Subjects, parse},
};
use proptest::prelude::*;

fn region(name: &str) -> RegionName {
    name.parse().unwrap()
}

/// The one mistake of a text whose last line is this.
#[track_caller]
fn check(line: &str, message: &str, help: &str) {
    let text = format!("drill x\nregions 2..5\nat 0s kill region writer\n{line}\n");
    let mistakes: Vec<_> = parse("x.drill", &text).unwrap_err().iter().cloned().collect();
    assert_eq!(mistakes.len(), 1, "{mistakes:?}");
    assert_eq!(mistakes[0].line, 4);
    let said = (mistakes[0].message.as_str(), mistakes[0].help.as_str());
    assert!(said.0.contains(message) && said.1.contains(help), "{said:?}");
}

#[test]
fn every_mistake_says_what_is_wrong_and_how_to_mend_it() {
    check("expct two-writers never", "`expct` is not the begin of a line", "did you mean `expect`?");
    check("at 1 kill region writer", "`1` is not a time", "500ms, 15s or 2m");
    check("at 0.25ms heal", "not a time in whole milliseconds", "500ms");
    check("at", "the line ends where a time is expected", "500ms");
    check("at 1s", "the line ends where what to do is expected", "kill, crash");
    check("at 1s kil region writer", "`kil` is not something a drill can do", "did you mean `kill`?");
    check("at 1s kill postgres writer", "`writer` stands where `in` is expected", "kill postgres in writer");
    check("at 1s kill postgre in writer", "not a process of a region", "did you mean `postgres`?");
    check("at 1s kill region", "the line ends where a region is expected", "writer, holder, replica");
    check("at 1s kill region writr", "`writr` is not a role", "did you mean `writer`?");
    check("at 1s kill region EU", "`EU` is not a region's name", "writer, holder, replica");
    check("at 1s kill region replica-0", "is no replica", "replica-1");
    check("at 1s kill region replica-2", "`replica-2` needs at least 3 regions", "`regions`");
    check("at 1s kill region writer, writer", "`writer` is named twice", "once");
    check("at 1s crash region writer", "a region cannot be told to crash", "crash agent in writer");
    check("at 1s stall writer", "`stall` is for a region", "stall region writer");
    check("at 1s kill agent in witness", "the witness has no agent", "etcd");
    check("at 1s fill disk in witness", "the witness has no database", "region with data");
    check("at 1s cut link writer others", "`others` is not an arrow", "`<->` or `->`");
    check("at 1s cut link writer <-> writer", "both sides of the link", "different regions");
    check("at 1s slow link writer <-> others", "where `by` is expected", "by 200ms");
    check("at 1s slow link writer <-> others by 1s rate 5", "`5` is not a rate", "500kB/s");
    check("at 1s skew clock in writer by 2s", "`2s` is not a time with a sign", "+2s");
    check("at 1s switchover to others", "`others` cannot take the right", "name one region");
    check("at 1s heal everything", "`everything` stands where `link`", "heal link");
    check("at 1s failback now", "`now` is too much on this line", "one thing");
    check("drill y", "named twice", "keep one");
    check("regions 5..2", "is not a number of regions", "2..5");
    check("regions 3", "said twice", "keep one");
    check("expect writes in 5s", "where `within` is expected", "expect writes within 5s");
    check("expect lost all", "`all` is not what may be lost", "`none` or `counted`");
    check("expect two-writer never", "not something to expect", "did you mean `two-writers`?");
    check("at 25h heal", "later than a day", "within a day");
}

#[test]
fn all_mistakes_of_a_text_are_reported_in_the_order_of_its_lines() {
    let text = "regions 9..10\nat 1s kill region writer\nat 0s bread\n\nexpect writes\nexpect lost none\nexpect lost none\n";
    let mistakes = parse("bad.drill", text).unwrap_err();
    let lines: Vec<usize> = mistakes.iter().map(|mistake| mistake.line).collect();
    assert_eq!(lines, [1, 1, 2, 3, 5, 7], "{mistakes:?}");
    assert_eq!(mistakes.to_string(), "6 mistakes in bad.drill");
    assert!(parse("empty.drill", "").unwrap_err().iter().any(|one| one.message.contains("no name")));
}

#[test]
fn every_drill_that_comes_with_isles_reads_back_as_it_is_written() {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../drills");
    assert_eq!(std::fs::read_dir(files).unwrap().count(), CATALOGUE.len());
    for (name, text) in CATALOGUE {
        let drill = parse(name, text).unwrap();
        assert_eq!(drill.name, name);
        assert!(!drill.says.is_empty() && !drill.expects.is_empty(), "{name}");
        assert_eq!(parse(name, &drill.to_string()).unwrap(), drill);
    }
}

#[test]
fn a_line_means_what_it_says() {
    let text = "# One.\n# Two.\ndrill a-b # not this\nregions 3\n# nor this\n\
                at 0s slow link replica, eu-west-1 -> others by 1.5s rate 20kB/s\r\nat 2m skew clock in writer by -500ms";
    let drill = parse("a", text).unwrap();
    assert_eq!(drill.says, ["One.", "Two."]);
    assert_eq!(drill.last_act(), Duration::from_secs(120));
    let Deed::Link { what, from, both, .. } = &drill.acts[0].deed else { panic!("{drill:?}") };
    assert_eq!(*what, LinkDeed::Slow { by: Duration::from_millis(1500), rate: Some(20_000) });
    assert_eq!(from.0, [Subject::Replica(1), Subject::Named(region("eu-west-1"))]);
    assert!(!both);
    assert!(matches!(drill.acts[1].deed, Deed::Clock { ahead_ms: -500, .. }));
}

#[test]
fn others_are_all_that_are_not_named_otherwise() {
    let writer = region("a");
    let (replicas, witness) = ([region("b"), region("c")], region("w"));
    let meant = |subjects: &[Subject], taken: &[RegionName], whole| {
        let resolved = Subjects(subjects.to_vec()).resolve(&writer, &replicas, Some(&witness), taken, whole);
        resolved.iter().map(RegionName::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(meant(&[Subject::Others], &[], false), "b c");
    assert_eq!(meant(&[Subject::Others], std::slice::from_ref(&writer), true), "b c w");
    assert_eq!(meant(&[Subject::Others], &[writer.clone(), region("b")], true), "c w");
    assert_eq!(meant(&[Subject::Others], &[region("c")], true), "a b w");
    assert_eq!(meant(&[Subject::Replica(2), Subject::Others], &[], false), "c a b");
    let (holder, c) = (Subjects::one(Subject::Holder), region("c"));
    assert_eq!(holder.with_holder(&c).0, [Subject::Named(c)]);
    assert_eq!(meant(&[Subject::Holder], &[], false), "a");
    assert_eq!(meant(&[Subject::Witness, Subject::Named(region("b"))], &[], false), "w b");
}

proptest! {
    #[test]
    fn no_text_breaks_the_reader(text in "(?s).{0,200}") {
        let _ = parse("any", &text);
    }

    #[test]
    fn no_sequence_of_words_breaks_the_reader(words in prop::collection::vec(
        prop::sample::select(vec!["at", "0s", "kill", "region", "writer", ",", "<->", "cut", "link", "in", "by", "#",
            "expect", "within", "\n", "others", "etcd", "heal", "drill", "regions", "2..3", "slow", "é"]), 0..40)) {
        let _ = parse("any", &words.join(" "));
    }
}
