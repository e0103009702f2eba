//! Carries another protocol (WebSocket) between a client and an app, once both have agreed to it.

use std::future::Future;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

use crate::pool::Lease;

/// Copies both ways until one side or `end` ends. The lease keeps the upstream's slot taken meanwhile.
pub(crate) async fn tunnel(
    client: OnUpgrade,
    upstream: OnUpgrade,
    lease: Lease,
    end: impl Future<Output = ()>,
) {
    let talk = async {
        if let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) {
            // A tunnel that breaks is closed on both sides, which is all that either can be told.
            let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await;
        }
    };
    tokio::select! {
        () = talk => {}
        () = end => {}
    }
    drop(lease);
}
