//! Brings one request to one upstream, once, and says what is known of its fate.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;

use crate::{
    body::{Outgoing, Payload},
    link::Link,
    pool::{Lease, NoConnection, Reuse, Upstream},
};

/// So many pooled connections may turn out closed before a request is given up as not sent.
const CLOSED_CONNECTIONS_MAX: usize = 4;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The head of an answer has come, by this connection.
    Answered(Response<Incoming>, Lease),
    /// Not a byte was sent; the body is back in the payload.
    NotSent(&'static str),
    /// Sent in whole or part, and no answer came.
    Lost(&'static str),
}

/// How an upstream is reached for one request.
#[derive(Clone, Copy)]
pub(crate) struct Way<'a> {
    pub(crate) upstream: &'a Arc<Upstream>,
    pub(crate) reuse: Reuse,
    pub(crate) connect_within: Duration,
    /// A new connection to this peer (at this round trip) must answer a ping before the request is entrusted to it.
    pub(crate) prove: Option<(&'a Link, Duration)>,
}

impl Way<'_> {
    async fn lease(self, reuse: Reuse) -> Result<Lease, &'static str> {
        let mut lease = self.upstream.lease(reuse, self.connect_within).await.map_err(|why| match why {
            NoConnection::Connect(_) => "connect",
            NoConnection::Silent => "connect_timeout",
            NoConnection::Busy => "busy",
        })?;
        match self.prove.filter(|_| lease.is_new()) {
            Some((link, rtt)) if !link.answers_on(&mut lease, rtt).await => Err("no_pong"),
            _ => Ok(lease),
        }
    }
}

/// Sends `request` (whose body was lent by `payload`) and waits for the head of the answer, or for `gone`, which says
/// that none is to be expected.
pub(crate) async fn attempt(
    way: Way<'_>,
    mut request: Request<Outgoing>,
    payload: &mut Payload,
    gone: impl Future<Output = &'static str>,
) -> Outcome {
    let mut gone = std::pin::pin!(gone);
    for round in 0..=CLOSED_CONNECTIONS_MAX {
        let reuse = if round == CLOSED_CONNECTIONS_MAX { Reuse::None } else { way.reuse };
        let mut lease = match way.lease(reuse).await {
            Ok(lease) => lease,
            Err(why) => {
                payload.give_back(request.into_body());
                return Outcome::NotSent(why);
            }
        };
        let sent = lease.sender.try_send_request(request);
        let answer = tokio::select! {
            answer = sent => answer,
            why = &mut gone => return Outcome::Lost(why),
        };
        match answer {
            Ok(response) => return Outcome::Answered(response, lease),
            // hyper gives the request back only if it has not begun to write it.
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None if error.error().is_incomplete_message() => return Outcome::Lost("closed"),
                None => return Outcome::Lost("reset"),
            },
        }
    }
    payload.give_back(request.into_body());
    Outcome::NotSent("closed_before")
}
