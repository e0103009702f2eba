//! What users see when an app instance, an edge or the way to a region fails under them.

mod support;

use std::{sync::atomic::Ordering, time::Duration};

use http::StatusCode;
use isles_model::{Because, Metric};
use support::{
    Region, Setup, app::App, at, eventually, get, header, here, nowhere, plan, post, relay::Relay, send, text,
};
use tokio::{net::TcpListener, time::Instant};

/// Region `a` reads and writes at `b`, over a wire that can be cut; `c` reads too.
async fn with_a_wire() -> (Region, Relay, Region, App, Region, App) {
    let (app_b, app_c) = (App::start("app of b").await, App::start("app of c").await);
    let b = Setup::new("b", &[app_b.address], plan(&["b"], 1, here(1))).start().await;
    let c = Setup::new("c", &[app_c.address], plan(&["c", "b"], 1, at("b", 1))).start().await;
    let wire = Relay::to(b.address).await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b", "c"], 0, at("b", 1)));
    setup.peers = vec![("b", wire.address), ("c", c.address)];
    (setup.start().await, wire, b, app_b, c, app_c)
}

#[tokio::test]
async fn a_read_whose_instance_dies_is_answered_by_another() {
    let (first, second) = (App::start("first").await, App::start("second").await);
    let a = Setup::new("a", &[first.address, second.address], plan(&["a"], 2, here(1))).start().await;
    let address = a.address;
    let reads: Vec<_> =
        (0..6).map(|_| tokio::spawn(async move { send(address, get("/slow")).await })).collect();
    eventually("both have some", || async { first.requests() + second.requests() == 6 }).await;
    first.kill().await;
    eventually("the other has all", || async { second.requests() == 6 }).await;
    second.seen.go_on.notify_waiters();
    for read in reads {
        assert_eq!(text(&read.await.unwrap()), "second");
    }
    assert_eq!(a.counts.get(Metric::RequestErrors, &["closed"]), 0.0);
    for _ in 0..4 {
        assert_eq!(text(&send(address, get("/")).await), "second");
    }
}

#[tokio::test]
async fn a_write_whose_instance_dies_is_not_done_twice() {
    let (first, second) = (App::start("first").await, App::start("second").await);
    let a = Setup::new("a", &[first.address, second.address], plan(&["a"], 2, here(1))).start().await;
    let address = a.address;
    let writes: Vec<_> =
        (0..6).map(|_| tokio::spawn(async move { send(address, post("/slow", "order")).await })).collect();
    eventually("both have some", || async { first.writes() + second.writes() == 6 }).await;
    let (had_first, had_second) = (first.writes(), second.writes());
    first.kill().await;
    second.seen.go_on.notify_waiters();
    let (mut unknown, mut done) = (0, 0);
    for write in writes {
        let response = write.await.unwrap();
        match response.status() {
            StatusCode::OK => done += 1,
            StatusCode::BAD_GATEWAY => {
                assert_eq!(header(&response, "isles-outcome"), "unknown");
                assert_eq!(header(&response, "retry-after"), "1");
                unknown += 1;
            }
            other => panic!("{other}: {}", text(&response)),
        }
    }
    assert_eq!((unknown, done), (had_first, had_second));
    assert_eq!(second.writes(), had_second);
}

#[tokio::test]
async fn a_write_that_was_not_sent_is_brought_elsewhere() {
    let gone = App::start("gone").await.kill().await;
    let second = App::start("second").await;
    let a = Setup::new("a", &[gone, second.address], plan(&["a"], 2, here(1))).start().await;
    for _ in 0..4 {
        assert_eq!(text(&send(a.address, post("/", "order")).await), "second");
    }
    assert_eq!(second.writes(), 4);
    assert!(a.counts.get(Metric::Retried, &["connect"]) >= 1.0);
}

#[tokio::test]
async fn a_put_whose_instance_dies_is_repeated() {
    let (first, second) = (App::start("first").await, App::start("second").await);
    let a = Setup::new("a", &[first.address, second.address], plan(&["a"], 2, here(1))).start().await;
    let address = a.address;
    let puts: Vec<_> = (0..4)
        .map(|_| {
            let mut put = post("/slow", "order");
            *put.method_mut() = http::Method::PUT;
            tokio::spawn(async move { send(address, put).await })
        })
        .collect();
    eventually("both have some", || async { first.writes() + second.writes() == 4 }).await;
    first.kill().await;
    eventually("the other has all", || async { second.writes() == 4 }).await;
    second.seen.go_on.notify_waiters();
    for put in puts {
        assert_eq!(text(&put.await.unwrap()), "second");
    }
}

#[tokio::test]
async fn reads_recover_within_a_second_of_a_regions_death() {
    let (a, _wire, b, app_b, _c, _app_c) = with_a_wire().await;
    assert_eq!(text(&send(a.address, get("/")).await), "app of b");
    drop((b, app_b));
    let began = Instant::now();
    assert_eq!(text(&send(a.address, get("/")).await), "app of c");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn reads_recover_within_a_second_of_a_region_being_cut_off() {
    let (a, wire, _b, app_b, _c, app_c) = with_a_wire().await;
    let address = a.address;
    assert_eq!(text(&send(address, get("/")).await), "app of b");
    let under_way = tokio::spawn(async move { send(address, get("/slow")).await });
    eventually("it is under way", || async { app_b.requests() == 2 }).await;
    wire.cut();
    let began = Instant::now();
    assert_eq!(text(&send(address, get("/")).await), "app of c");
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    eventually("the one under way is answered elsewhere too", || async {
        app_c.seen.go_on.notify_waiters();
        under_way.is_finished()
    })
    .await;
    assert_eq!(text(&under_way.await.unwrap()), "app of c");
}

#[tokio::test]
async fn a_slow_answer_of_a_living_region_is_waited_for() {
    let (a, wire, _b, app_b, _c, app_c) = with_a_wire().await;
    let address = a.address;
    let slow = tokio::spawn(async move { send(address, get("/slow")).await });
    eventually("it is under way", || async { app_b.requests() == 1 }).await;
    eventually("the peer's edge was asked and has answered", || async {
        wire.taken.load(Ordering::SeqCst) >= 4
    })
    .await;
    app_b.seen.go_on.notify_waiters();
    assert_eq!(text(&slow.await.unwrap()), "app of b");
    assert_eq!(app_c.requests(), 0);
}

#[tokio::test]
async fn a_write_under_way_to_a_region_cut_off_ends_unknown_when_the_plan_says_so() {
    let (a, wire, _b, app_b, _c, app_c) = with_a_wire().await;
    let address = a.address;
    let write = tokio::spawn(async move { send(address, post("/slow", "order")).await });
    eventually("it is under way", || async { app_b.writes() == 1 }).await;
    wire.cut();
    let mut silent = plan(&["a", "b", "c"], 0, nowhere());
    silent.serve[1].app = false;
    silent.serve[1].because = Because::PeerSilent;
    a.plans.send_replace(silent);
    let response = write.await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(header(&response, "isles-outcome"), "unknown");
    assert_eq!((app_b.writes(), app_c.writes()), (1, 0));
}

#[tokio::test]
async fn writes_to_a_region_that_died_wait_for_the_next_writer() {
    let (a, _wire, b, app_b, c, app_c) = with_a_wire().await;
    let address = a.address;
    drop((b, app_b));
    let write = tokio::spawn(async move { send(address, post("/", "order")).await });
    eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    c.plans.send_replace(plan(&["c"], 1, here(2)));
    a.plans.send_replace(plan(&["a", "c"], 0, at("c", 2)));
    assert_eq!(text(&write.await.unwrap()), "app of c");
    assert_eq!(app_c.writes(), 1);
}

#[tokio::test]
async fn an_instance_that_comes_back_is_used_again() {
    let app = App::start("before").await;
    let a = Setup::new("a", &[app.address], plan(&["a"], 1, here(1))).start().await;
    let address = app.kill().await;
    let to = a.address;
    let waiting = tokio::spawn(async move { send(to, post("/", "order")).await });
    eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    let again = App::start_on("after", TcpListener::bind(address).await.unwrap());
    assert_eq!(text(&waiting.await.unwrap()), "after");
    assert_eq!(again.writes(), 1);
}

#[tokio::test]
async fn a_read_leaves_a_frozen_instance_when_the_plan_drops_it() {
    let (frozen, second) = (App::start("frozen").await, App::start("second").await);
    let a = Setup::new("a", &[frozen.address, second.address], plan(&["a"], 1, here(1))).start().await;
    let address = a.address;
    let read = tokio::spawn(async move { send(address, get("/slow")).await });
    eventually("it is under way", || async { frozen.requests() == 1 }).await;
    let mut dropped = plan(&["a"], 2, here(1));
    dropped.instances = vec![1];
    a.plans.send_replace(dropped);
    eventually("the other has it", || async { second.requests() == 1 }).await;
    second.seen.go_on.notify_waiters();
    assert_eq!(text(&read.await.unwrap()), "second");
    assert_eq!(a.counts.get(Metric::Retried, &["instance_unhealthy"]), 1.0);
}

#[tokio::test]
async fn a_write_under_way_to_a_region_cut_off_ends_unknown_though_the_plan_never_says_so() {
    let (a, wire, _b, app_b, _c, app_c) = with_a_wire().await;
    let address = a.address;
    let write = tokio::spawn(async move { send(address, post("/slow", "order")).await });
    eventually("it is under way", || async { app_b.writes() == 1 }).await;
    wire.cut();
    let response = write.await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(header(&response, "isles-outcome"), "unknown");
    assert_eq!((app_b.writes(), app_c.writes()), (1, 0));
}

#[tokio::test]
async fn writes_to_a_region_cut_off_wait_for_the_next_writer_or_its_return() {
    let (a, wire, _b, app_b, _c, _app_c) = with_a_wire().await;
    let address = a.address;
    wire.cut();
    let write = tokio::spawn(async move { send(address, post("/", "order")).await });
    eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    assert_eq!(app_b.writes(), 0);
    wire.mend();
    assert_eq!(text(&write.await.unwrap()), "app of b");
    assert_eq!(app_b.writes(), 1);
}
