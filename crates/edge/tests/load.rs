//! Many clients at once while apps and regions die: nothing is done twice, nothing acknowledged is missing.

#![allow(clippy::unwrap_used, reason = "this is a test")]

mod support;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use isles_model::Metric;
use support::{DEADLINE, Setup, app::App, at, get, header, here, nowhere, plan, post};
use tokio::{
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const CLIENTS: usize = 16;
const ORDERS_EACH: usize = 40;

/// How each of one client's orders was answered.
type Answers = BTreeMap<String, (StatusCode, String)>;

async fn connect(to: SocketAddr) -> hyper::client::conn::http1::SendRequest<Full<Bytes>> {
    let socket = TcpStream::connect(to).await.unwrap();
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Orders one thing after another over one connection, as a browser does.
async fn order(to: SocketAddr, client: usize, done: Arc<AtomicUsize>) -> Answers {
    let mut sender = connect(to).await;
    let mut answers = Answers::new();
    for number in 0..ORDERS_EACH {
        let id = format!("{client}-{number}");
        if sender.ready().await.is_err() {
            sender = connect(to).await;
        }
        let answer = timeout(DEADLINE, sender.send_request(post("/order", &id))).await.unwrap().unwrap();
        let (parts, body) = answer.into_parts();
        let answer = http::Response::from_parts(parts, body.collect().await.unwrap().to_bytes());
        answers.insert(id, (answer.status(), header(&answer, "isles-outcome").to_owned()));
        done.fetch_add(1, Ordering::SeqCst);
    }
    answers
}

fn spawn_orders(to: SocketAddr, done: &Arc<AtomicUsize>) -> Vec<tokio::task::JoinHandle<Answers>> {
    (0..CLIENTS).map(|client| tokio::spawn(order(to, client, done.clone()))).collect()
}

async fn until_done(done: &AtomicUsize, count: usize) {
    support::eventually("orders go on", || async { done.load(Ordering::SeqCst) >= count }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_is_taken_twice_while_instances_are_killed() {
    let mut apps = Vec::new();
    for name in ["first", "second"] {
        apps.push(App::start(name).await);
    }
    let addresses: Vec<_> = apps.iter().map(|app| app.address).collect();
    let a = Setup::new("a", &addresses, plan(&["a"], 2, here(1))).start().await;
    let done = Arc::new(AtomicUsize::new(0));
    let clients = spawn_orders(a.address, &done);
    let seen: Vec<_> = apps.iter().map(|app| app.seen.clone()).collect();
    for kill in 1..=6 {
        until_done(&done, kill * CLIENTS * ORDERS_EACH / 8).await;
        let app = apps.remove(0);
        let seen_of_it = app.seen.clone();
        let address = app.kill().await;
        until_done(&done, (kill * 2 + 1) * CLIENTS * ORDERS_EACH / 16).await;
        let listener = TcpListener::bind(address).await.unwrap();
        apps.push(App::start_again("again", listener, seen_of_it));
    }
    let mut taken: BTreeMap<String, usize> = BTreeMap::new();
    let mut answers = Answers::new();
    for client in clients {
        answers.extend(client.await.unwrap());
    }
    for seen in seen {
        for (id, times) in seen.orders.lock().unwrap().iter() {
            *taken.entry(String::from_utf8(id.to_vec()).unwrap()).or_default() += times;
        }
    }
    assert_eq!(answers.len(), CLIENTS * ORDERS_EACH);
    for (id, (status, outcome)) in &answers {
        let times = taken.get(id).copied().unwrap_or_default();
        match (*status, outcome.as_str()) {
            (StatusCode::OK, _) => assert_eq!(times, 1, "{id}"),
            (StatusCode::BAD_GATEWAY, "unknown") => assert!(times <= 1, "{id} was taken {times} times"),
            other => panic!("{id}: {other:?}"),
        }
    }
    let unknown = answers.values().filter(|(status, _)| *status != StatusCode::OK).count();
    assert!(unknown <= 6 * CLIENTS, "{unknown} of {} ended unknown", answers.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_order_is_taken_once_while_the_right_to_write_moves() {
    let (app_b, app_c) = (App::start("app of b").await, App::start("app of c").await);
    let b = Setup::new("b", &[app_b.address], plan(&["b"], 1, here(1))).start().await;
    let c = Setup::new("c", &[app_c.address], plan(&["c"], 1, at("b", 1))).start().await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b", "c"], 0, at("b", 1)));
    setup.peers = vec![("b", b.address), ("c", c.address)];
    let a = setup.start().await;
    let done = Arc::new(AtomicUsize::new(0));
    let clients = spawn_orders(a.address, &done);

    // A switchover: the writer stops first, the edge far away learns of it last.
    for (turn, epoch) in (1..=6).zip(2..) {
        until_done(&done, turn * CLIENTS * ORDERS_EACH / 8).await;
        let (old, new, next) = if epoch % 2 == 0 { (&b, &c, "c") } else { (&c, &b, "b") };
        old.plans.send_replace(plan(&[if epoch % 2 == 0 { "b" } else { "c" }], 1, nowhere()));
        support::eventually("writes are held", || async { a.counts.get(Metric::Held, &[]) >= 1.0 }).await;
        new.plans.send_replace(plan(&[next], 1, here(epoch)));
        a.plans.send_replace(plan(&["a", "b", "c"], 0, at(next, epoch)));
    }
    let mut answered = 0;
    for client in clients {
        for (id, (status, outcome)) in client.await.unwrap() {
            assert_eq!(status, StatusCode::OK, "{id}: {outcome}");
            answered += 1;
        }
    }
    let mut taken: BTreeMap<Bytes, usize> = BTreeMap::new();
    for app in [&app_b, &app_c] {
        for (id, times) in app.seen.orders.lock().unwrap().iter() {
            *taken.entry(id.clone()).or_default() += times;
        }
    }
    assert_eq!((answered, taken.len()), (CLIENTS * ORDERS_EACH, CLIENTS * ORDERS_EACH));
    assert!(taken.values().all(|times| *times == 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_when_a_region_dies_under_load() {
    let (app_b, app_c) = (App::start("app of b").await, App::start("app of c").await);
    let b = Setup::new("b", &[app_b.address], plan(&["b"], 1, here(1))).start().await;
    let c = Setup::new("c", &[app_c.address], plan(&["c"], 1, at("b", 1))).start().await;
    let mut setup = Setup::new("a", &[], plan(&["a", "b", "c"], 0, at("b", 1)));
    setup.peers = vec![("b", b.address), ("c", c.address)];
    let a = setup.start().await;
    let (done, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let address = a.address;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (done, stop) = (done.clone(), stop.clone());
            tokio::spawn(async move {
                let mut sender = connect(address).await;
                while !stop.load(Ordering::SeqCst) {
                    sender.ready().await.unwrap();
                    let began = Instant::now();
                    let answer = sender.send_request(get("/")).await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK);
                    answer.into_body().collect().await.unwrap();
                    assert!(began.elapsed() < DEADLINE / 10, "{:?}", began.elapsed());
                    done.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    until_done(&done, 200).await;
    drop((b, app_b));
    let before = done.load(Ordering::SeqCst);
    until_done(&done, before + 200).await;
    stop.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    assert!(app_c.requests() >= 150);
}
