//! Stands between the shop and PostgreSQL, and cuts the connection when a chosen word is sent.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::cluster::DEADLINE;

/// What the relay does when the word goes by.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Cut {
    /// PostgreSQL never sees the word.
    BeforeSending(&'static str),
    /// PostgreSQL acts on the word; the shop never hears of it.
    BeforeAnswering(&'static str),
}

#[derive(Clone)]
pub(crate) struct Relay {
    port: u16,
    next_cut: Arc<Mutex<Option<Cut>>>,
}

impl Relay {
    pub(crate) async fn to(upstream: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let relay = Self { port: listener.local_addr().unwrap().port(), next_cut: Arc::default() };
        let next_cut = relay.next_cut.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", upstream)).await;
                if let Ok(server) = server {
                    tokio::spawn(pass(client, server, next_cut.clone()));
                }
            }
        });
        relay
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Cuts one connection, once.
    pub(crate) fn cut_once(&self, cut: Cut) {
        *self.next_cut.lock().unwrap() = Some(cut);
    }

    /// Whether the cut that was asked for has happened.
    pub(crate) fn has_cut(&self) -> bool {
        self.next_cut.lock().unwrap().is_none()
    }
}

async fn pass(client: TcpStream, server: TcpStream, next_cut: Arc<Mutex<Option<Cut>>>) {
    let (mut from_client, to_client) = client.into_split();
    let (from_server, mut to_server) = server.into_split();
    let muted = Arc::new(AtomicBool::new(false));
    let answers = tokio::spawn(answer(from_server, to_client, muted.clone()));
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
        let sent = &bytes[..length];
        let cut = next_cut.lock().unwrap().take_if(|cut| {
            let (Cut::BeforeSending(word) | Cut::BeforeAnswering(word)) = cut;
            sent.windows(word.len()).any(|window| window == word.as_bytes())
        });
        match cut {
            None => drop(to_server.write_all(sent).await),
            Some(Cut::BeforeSending(_)) => break,
            Some(Cut::BeforeAnswering(_)) => {
                // Half-closed, PostgreSQL acts on what it was sent and hangs up.
                muted.store(true, Ordering::SeqCst);
                drop(to_server.write_all(sent).await);
                drop(to_server.shutdown().await);
                drop(timeout(DEADLINE, answers).await);
                return;
            }
        }
    }
    answers.abort();
}

async fn answer(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, muted: Arc<AtomicBool>) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if !muted.load(Ordering::SeqCst) {
            drop(to.write_all(&bytes[..length]).await);
        }
    }
}
