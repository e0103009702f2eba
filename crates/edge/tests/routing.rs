//! Where requests end up between two healthy regions, and what the headers say of it.

mod support;

use std::time::Duration;

use http::{HeaderValue, Request, StatusCode};
use isles_model::{Because, Epoch, Metric, Plan, topology::WriteRouting};
use support::{Region, Setup, app::App, at, get, header, here, name, nowhere, plan, post, send, text};

/// Region `b` writes; `a` sends writes there.
async fn two_regions() -> (Region, App, Region, App) {
    let (app_a, app_b) = (App::start("app of a").await, App::start("app of b").await);
    let b = Setup::new("b", &[app_b.address], plan(&["b", "a"], 1, here(1))).start().await;
    let mut setup = Setup::new("a", &[app_a.address], plan(&["a", "b"], 1, at("b", 1)));
    setup.peers = vec![("b", b.address)];
    (setup.start().await, app_a, b, app_b)
}

#[tokio::test]
async fn reads_are_answered_here_and_writes_by_the_writer() {
    let (a, app_a, b, app_b) = two_regions().await;
    let read = send(a.address, get("/")).await;
    assert_eq!(
        (text(&read), header(&read, "isles-region"), header(&read, "isles-edge")),
        ("app of a", "a", "a")
    );
    let write = send(a.address, post("/", "order")).await;
    let said = (text(&write), header(&write, "isles-region"), header(&write, "isles-edge"));
    assert_eq!(said, ("app of b", "b", "a"));
    assert_eq!((app_a.writes(), app_b.writes()), (0, 1));
    assert_eq!(a.counts.get(Metric::Forwarded, &["b"]), 1.0);
    assert_eq!(a.counts.get(Metric::Requests, &["b", "write", "2xx"]), 1.0);
    assert_eq!(b.counts.sum(Metric::Requests), 0.0);
}

#[tokio::test]
async fn an_app_sees_the_client_and_nothing_of_the_way() {
    let (a, _app_a, _b, _app_b) = two_regions().await;
    for request in [get("/headers?x=1"), post("/headers?x=1", "")] {
        let method = request.method().clone();
        let mut request = request;
        for (name, value) in [
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("isles-hop", "1;a;1;00"),
            ("connection", "x-private"),
            ("x-private", "1"),
            ("cookie", "a=b"),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let response = send(a.address, request).await;
        let seen = text(&response);
        assert!(seen.starts_with(&format!("{method} /headers?x=1\n")), "{seen}");
        for line in [
            "host: shop.example\n",
            "x-forwarded-for: 127.0.0.1\n",
            "x-forwarded-host: shop.example\n",
            "forwarded: for=127.0.0.1;host=\"shop.example\";proto=http\n",
            "cookie: a=b\n",
        ] {
            assert!(seen.contains(line), "{line} in {seen}");
        }
        for word in ["6.6.6.6", "isles-", "x-private", "connection"] {
            assert!(!seen.contains(word), "{word} in {seen}");
        }
    }
}

#[tokio::test]
async fn an_app_cannot_speak_as_an_edge() {
    let (a, _app_a, _b, app_b) = two_regions().await;
    for request in [get("/claims"), post("/claims", "")] {
        let response = send(a.address, request).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(header(&response, "server"), "app/1");
        assert_ne!(header(&response, "isles-region"), "elsewhere");
        assert!(!response.headers().contains_key("isles-not-served"));
        assert!(!response.headers().contains_key("x-secret"));
    }
    assert_eq!(app_b.writes(), 1);
}

#[tokio::test]
async fn a_write_under_a_superseded_epoch_reaches_no_app_until_the_sender_knows_better() {
    let (a, app_a, b, app_b) = two_regions().await;
    b.plans.send_replace(plan(&["b", "a"], 1, here(2)));
    let address = a.address;
    let write = tokio::spawn(async move { send(address, post("/", "order")).await });
    support::eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    assert!(a.counts.get(Metric::Retried, &["epoch"]) >= 1.0);
    assert_eq!((app_a.writes(), app_b.writes()), (0, 0));
    a.plans.send_replace(plan(&["a", "b"], 1, at("b", 2)));
    assert_eq!(text(&write.await.unwrap()), "app of b");
    assert_eq!(app_b.writes(), 1);
    assert_eq!(a.counts.get(Metric::HeldTotal, &["released"]), 1.0);
}

#[tokio::test]
async fn a_peer_with_another_secret_is_an_ordinary_client() {
    let app = App::start("app of b").await;
    let b = Setup::new("b", &[app.address], plan(&["b"], 1, here(9))).start().await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b"], 0, at("b", 1)));
    setup.peers = vec![("b", b.address)];
    setup.secret = "another secret";
    let a = setup.start().await;
    let response = send(a.address, get("/headers")).await;
    assert!(text(&response).contains("x-forwarded-for: 127.0.0.1\n"));
    assert_eq!(b.counts.sum(Metric::Requests), 1.0);
}

#[tokio::test]
async fn a_write_is_turned_away_where_the_spec_says_so() {
    let mut setup = Setup::new("a", &[], plan(&["a", "b"], 0, at("b", 1)));
    setup.writes = WriteRouting::Reject;
    let a = setup.start().await;
    let response = send(a.address, post("/", "")).await;
    assert_eq!(response.status(), StatusCode::MISDIRECTED_REQUEST);
    assert_eq!(header(&response, "isles-writer"), "b");
}

#[tokio::test]
async fn any_app_takes_the_writes_of_a_writer_whose_own_apps_are_down() {
    let (a, app_a, b, _app_b) = two_regions().await;
    b.plans.send_replace(plan(&["b", "a"], 0, here(1)));
    let response = send(a.address, post("/", "")).await;
    assert_eq!(text(&response), "app of a");
    assert_eq!(app_a.writes(), 1);
}

#[tokio::test]
async fn a_held_write_goes_when_a_writer_is_known_and_in_the_order_of_arrival() {
    let app = App::start("app").await;
    let a = Setup::new("a", &[app.address], plan(&["a"], 1, nowhere())).start().await;
    let address = a.address;
    let mut writes = Vec::new();
    for number in 0..5 {
        writes.push(tokio::spawn(async move { send(address, post("/", &"x".repeat(number))).await }));
        let held = f64::from(u32::try_from(number).unwrap() + 1);
        support::eventually("one more is held", || async { a.counts.get(Metric::Held, &[]) == held }).await;
    }
    assert_eq!(text(&send(a.address, get("/")).await), "app");
    assert_eq!(app.writes(), 0);
    a.plans.send_replace(plan(&["a"], 1, here(1)));
    for write in writes {
        assert_eq!(write.await.unwrap().status(), StatusCode::OK);
    }
    assert_eq!(app.writes(), 5);
    assert_eq!(a.counts.get(Metric::Held, &[]), 0.0);
    assert_eq!(a.counts.get(Metric::HeldTotal, &["released"]), 5.0);
}

#[tokio::test]
async fn a_write_is_not_held_for_ever() {
    let mut setup = Setup::new("a", &[], plan(&["a"], 0, nowhere()));
    setup.hold_writes = Duration::from_millis(150);
    let a = setup.start().await;
    let response = send(a.address, post("/", "order")).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!((header(&response, "retry-after"), header(&response, "isles-outcome")), ("1", "not-done"));
    assert!(text(&response).contains("database is being promoted"), "{}", text(&response));
    assert_eq!(a.counts.get(Metric::HeldTotal, &["timed_out"]), 1.0);
}

#[tokio::test]
async fn a_write_too_large_to_hold_is_told_at_once() {
    let a = Setup::new("a", &[], plan(&["a"], 0, nowhere())).start().await;
    let large = "x".repeat(1024 * 1024 + 1);
    let request = Request::post("/").header("host", "a").body(large.into()).unwrap();
    let response = send(a.address, request).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(header(&response, "retry-after"), "1");
    assert_eq!(a.counts.get(Metric::HeldTotal, &["refused_full"]), 1.0);
}

#[tokio::test]
async fn a_lapsed_right_to_write_holds_without_a_new_plan() {
    let app = App::start("app").await;
    let until = isles_model::Moment(Duration::ZERO);
    let lapsed = isles_model::Writes::Here { epoch: Epoch(1), until };
    let a = Setup::new("a", &[app.address], plan(&["a"], 1, lapsed)).start().await;
    let address = a.address;
    let write = tokio::spawn(async move { send(address, post("/", "")).await });
    support::eventually("the write is held", || async { a.counts.get(Metric::Held, &[]) == 1.0 }).await;
    assert_eq!(app.writes(), 0);
    a.plans.send_replace(plan(&["a"], 1, here(2)));
    assert_eq!(write.await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_draining_region_answers_from_elsewhere() {
    let (a, app_a, _b, _app_b) = two_regions().await;
    a.plans.send_replace(Plan { draining: true, ..plan(&["a", "b"], 1, at("b", 1)) });
    let response = send(a.address, get("/")).await;
    assert_eq!((text(&response), header(&response, "isles-region")), ("app of b", "b"));
    assert_eq!(app_a.requests(), 0);
}

#[tokio::test]
async fn a_region_that_may_not_answer_reads_says_so_and_the_next_is_asked() {
    let (a, app_a, b, _app_b) = two_regions().await;
    let mut stale = plan(&["b", "a"], 1, here(1));
    stale.serve[0].reads = false;
    stale.serve[0].because = Because::TooStale;
    b.plans.send_replace(stale);
    let mut ours = plan(&["b", "a"], 1, at("b", 1));
    assert_eq!(ours.serve[0].region, name("b"));
    ours.serve[0].rtt = Duration::ZERO;
    a.plans.send_replace(ours);
    assert_eq!(text(&send(a.address, get("/")).await), "app of a");
    assert_eq!(app_a.requests(), 1);
    assert_eq!(a.counts.get(Metric::Retried, &["not_here"]), 1.0);
}
