//! Sessions as their messages tell of them: which can move, which are pinned, and what would be replayed.

use proptest::prelude::*;

use super::*;
use crate::gate::message::frame;

const READY: &[u8] = b"Z\0\0\0\x05I";

/// An idle session that has been greeted.
fn greeted() -> SessionState {
    let mut session = SessionState::new(BTreeMap::new(), false);
    session.given(READY);
    assert!(session.can_move());
    session
}

fn query(sql: &str) -> Vec<u8> {
    frame(b'Q', format!("{sql}\0").as_bytes())
}

fn parse(name: &str, sql: &str) -> Vec<u8> {
    frame(b'P', format!("{name}\0{sql}\0\0\0").as_bytes())
}

fn bind(name: &str) -> Vec<u8> {
    frame(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes())
}

/// Command tags and the readiness after them.
fn answer(tags: &[&str], status: &[u8]) -> Vec<u8> {
    let tags = tags.iter().flat_map(|tag| frame(b'C', format!("{tag}\0").as_bytes()));
    tags.chain(frame(b'Z', status)).collect()
}

fn ask(session: &mut SessionState, sql: &str, tags: &[&str]) {
    session.sent(&query(sql));
    assert!(!session.can_move(), "{sql} is under way");
    session.given(&answer(tags, b"I"));
}

fn prepare(session: &mut SessionState, name: &str, sql: &str) {
    session.sent(&[parse(name, sql), frame(b'S', b"")].concat());
    session.given(&[frame(b'1', b""), answer(&[], b"I")].concat());
}

fn execute(session: &mut SessionState, name: &str, tag: &str) {
    session.sent(&[bind(name), frame(b'E', b"\0\0\0\0\0"), frame(b'S', b"")].concat());
    session.given(&[frame(b'2', b""), answer(&[tag], b"I")].concat());
}

#[test]
fn a_session_can_move_only_when_every_answer_is_delivered() {
    let mut session = greeted();
    let sent = [parse("", "SELECT 1"), frame(b'S', b"")].concat();
    session.sent(&sent[..3]);
    assert!(!session.can_move(), "half a message is sent");
    session.sent(&sent[3..]);
    let given = [frame(b'1', b""), answer(&["SELECT 1"], b"I")].concat();
    for byte in &given {
        assert!(!session.can_move());
        session.given(&[*byte]);
    }
    assert!(session.can_move());
    session.sent(&frame(b'H', b""));
    assert!(!session.can_move(), "a request was begun and not ended");
}

#[test]
fn two_requests_in_flight_need_two_answers_and_a_transaction_its_end() {
    let mut session = greeted();
    session.sent(&[query("BEGIN"), query("SELECT 1")].concat());
    session.given(&answer(&["BEGIN"], b"T"));
    session.given(&answer(&["SELECT 1"], b"T"));
    assert!(!session.can_move());
    ask(&mut session, "COMMIT", &["COMMIT"]);
    assert!(session.can_move());
    session.sent(&frame(b'X', b""));
    assert!(!session.can_move(), "it says good-bye");
}

#[test]
fn prepared_statements_are_replayed_until_they_are_closed() {
    let mut session = greeted();
    for name in ["a", "b", "c", "d"] {
        prepare(&mut session, name, "SELECT 1");
    }
    session.sent(&[frame(b'C', b"Sa\0"), frame(b'C', b"P\0"), frame(b'S', b"")].concat());
    session.given(&[frame(b'3', b""), frame(b'3', b""), answer(&[], b"I")].concat());
    ask(&mut session, "DEALLOCATE b", &["DEALLOCATE"]);
    session.sent(&[parse("c", "SELECT 2"), frame(b'S', b"")].concat());
    session.given(&[frame(b'E', b"C42P05\0\0"), answer(&[], b"I")].concat());
    let expect = [parse("c", "SELECT 1"), parse("d", "SELECT 1"), frame(b'S', b"")].concat();
    assert!(session.can_move());
    assert_eq!(session.replay(), (expect, 1));
    ask(&mut session, "DEALLOCATE ALL", &["DEALLOCATE ALL"]);
    assert_eq!(session.replay(), (frame(b'S', b""), 1));
}

#[test]
fn settings_are_replayed_if_they_took_effect() {
    let mut session = greeted();
    ask(&mut session, "SET a.b = 1; SET a.c = 2", &["SET", "SET"]);
    prepare(&mut session, "set", "SET a.d = 3");
    execute(&mut session, "set", "SET");
    session.sent(&query("SET a.e = 4; SELECT 1 / 0"));
    session.given(&[frame(b'C', b"SET\0"), frame(b'E', b"C22012\0\0"), READY.to_vec()].concat());
    ask(&mut session, "BEGIN; SET LOCAL a.f = 5; COMMIT", &["BEGIN", "SET", "COMMIT"]);
    let (replay, ready) = session.replay();
    let expect = [
        query("SET a.b = 1"),
        query("SET a.c = 2"),
        query("SET a.d = 3"),
        parse("set", "SET a.d = 3"),
        frame(b'S', b""),
    ];
    assert_eq!((replay, ready), (expect.concat(), 4));
    assert!(session.can_move());
}

#[test]
fn a_setting_that_is_not_certainly_understood_pins() {
    for (sql, tags) in [
        ("/* now */ SET a.b = 1", &["SET"][..]),
        ("BEGIN; SET a.b = 1; COMMIT", &["BEGIN", "SET", "COMMIT"]),
        ("SELECT hidden()", &["SET"]),
        ("SET a.b = 1", &["SET", "SET"]),
    ] {
        let mut session = greeted();
        ask(&mut session, sql, tags);
        assert!(!session.can_move() && session.pinned().is_some(), "{sql}");
    }
    let long = format!("SET a.b = '{}'", "x".repeat(TEXT_BYTES_MAX));
    let mut session = greeted();
    ask(&mut session, &long, &["SET"]);
    assert!(!session.can_move());
}

#[test]
fn tags_and_foreign_messages_pin_whatever_the_text_was() {
    for tag in ["LISTEN", "PREPARE", "LOAD", "DO"] {
        let mut session = greeted();
        ask(&mut session, "SELECT innocent()", &[tag]);
        assert!(!session.can_move(), "{tag}");
    }
    let mut session = greeted();
    session.sent(&frame(b'F', b""));
    session.given(READY);
    assert!(!session.can_move());
    let mut session = greeted();
    session.sent(&query("COPY t FROM STDIN"));
    session.given(&frame(b'G', b"\0\0\0"));
    session.sent(&[frame(b'd', b"1\n"), frame(b'c', b"")].concat());
    session.given(&answer(&["COPY 1"], b"I"));
    assert!(!session.can_move());
    assert!(!SessionState::new(BTreeMap::new(), true).can_move());
}

#[test]
fn discard_all_unpins_unless_something_was_sent_after_it() {
    let mut session = greeted();
    ask(&mut session, "LISTEN a", &["LISTEN"]);
    prepare(&mut session, "a", "SELECT 1");
    ask(&mut session, "discard all;", &["DISCARD ALL"]);
    assert!(session.can_move());
    assert_eq!(session.replay(), (frame(b'S', b""), 1));

    session.sent(&[query("DISCARD ALL"), query("SELECT pg_advisory_lock(1)")].concat());
    session.given(&answer(&["DISCARD ALL"], b"I"));
    session.given(&answer(&["SELECT 1"], b"I"));
    assert!(!session.can_move());
}

#[test]
fn what_is_too_long_to_be_kept_is_streamed_and_pins_only_if_it_has_a_name() {
    let long = format!("SELECT '{}'", "x".repeat(PREPARED_BYTES_MAX));
    let mut session = greeted();
    prepare(&mut session, "", &long);
    assert!(!session.can_move(), "a later Bind could mean the unnamed statement");
    prepare(&mut session, "", "SELECT 1");
    assert!(session.can_move());
    prepare(&mut session, "named", &long);
    assert!(!session.can_move());
    assert!(session.prepared.bytes() < 1_000 && session.parsing_bytes == 0);
}

#[test]
fn more_requests_than_are_followed_end_the_following_and_not_the_session() {
    let mut session = greeted();
    let sync = frame(b'S', b"");
    session.sent(&sync.repeat(AWAITED_MAX + 1));
    session.given(&READY.repeat(AWAITED_MAX + 1));
    assert!(!session.can_move() && session.between_answers());
}

#[test]
fn the_word_that_ends_a_session_is_kept_from_one_that_can_move() {
    let fatal = frame(b'E', b"SFATAL\0C57P01\0\0");
    let mut session = greeted();
    let notice = frame(b'N', b"\0");
    assert_eq!(session.deliverable(&[notice.clone(), fatal.clone()].concat()), notice.len());
    assert_eq!(session.deliverable(&fatal[..1]), 0);
    session.sent(&query("SELECT 1"));
    let done = answer(&["SELECT 1"], b"I");
    assert_eq!(session.deliverable(&[done.clone(), fatal.clone()].concat()), done.len());
    assert_eq!(session.deliverable(&fatal), fatal.len(), "an unanswered client is told");
}

proptest! {
    #[test]
    fn any_messages_may_be_sent_and_given(turns: Vec<(bool, u8, Vec<u8>)>) {
        let mut session = greeted();
        for (up, kind, body) in turns {
            let letters: &[u8] = if up { b"QPBCDEHSFXdcf" } else { b"123CSEZNAGWHTDK" };
            let message = frame(letters[usize::from(kind) % letters.len()], &body);
            if up { session.sent(&message) } else { session.given(&message) }
            prop_assert!(session.prepared.bytes() + session.parsing_bytes <= PREPARED_BYTES_MAX);
            let _ = (session.replay(), session.deliverable(&body));
        }
    }

    #[test]
    fn any_bytes_may_be_sent_and_given(sent: Vec<Vec<u8>>, given: Vec<Vec<u8>>) {
        let mut session = greeted();
        sent.iter().for_each(|bytes| session.sent(bytes));
        given.iter().for_each(|bytes| session.given(bytes));
    }
}
