//! One request as its client sees it: refused, or answered, and counted.

use std::{net::IpAddr, sync::Arc};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use hyper::{body::Incoming, upgrade};
use isles_model::{Metric, RegionName};
use tokio::time::Instant;

use crate::{
    answer::{self, EDGE},
    body::Answer,
    edge::Edge,
    exchange::Exchange,
    head::Refusal,
    request::Asked,
};

/// Answers one request.
pub(crate) async fn serve(
    edge: Arc<Edge>,
    client: IpAddr,
    refused: Option<Refusal>,
    mut request: Request<Incoming>,
) -> Response<Answer> {
    let began = Instant::now();
    edge.repeats.earn();
    let http1 = request.version() < Version::HTTP_2;
    let may_change_protocol = http1 && request.headers().contains_key(header::UPGRADE);
    let on_upgrade = upgrade::on(&mut request);
    let (parts, incoming) = request.into_parts();
    let asked = refused.map_or_else(|| Asked::settle(parts), Err);
    let is_refused = asked.is_err();

    let (mut response, label) = match asked {
        Ok(asked) => {
            let stamped = edge.seal.read(&asked.method, &asked.target, &asked.headers);
            let label = asked.method_label();
            let stamp = match stamped {
                Some((_, true)) => return answer::pong(),
                Some((stamp, false)) => Some(stamp),
                None => None,
            };
            let from_user = stamp.is_none();
            let mut exchange = Exchange::new(&edge, client, asked, stamp, incoming, on_upgrade);
            let (served_from, response) = match Box::pin(exchange.run()).await {
                Ok((region, response)) => (Some(region), response),
                Err(own) => {
                    if from_user {
                        edge.meter.add(Metric::RequestErrors, &[own.reason], 1);
                    }
                    (None, *own.response)
                }
            };
            // Because a request between edges is counted where the user's was taken.
            (response, from_user.then_some((served_from, label)))
        }
        Err(refusal) => {
            let own = answer::refused(refusal);
            edge.meter.add(Metric::RequestErrors, &[own.reason], 1);
            (*own.response, Some((None, "unread")))
        }
    };
    if let Some((served_from, method)) = label {
        let served_from = served_from.as_ref().map_or("none", RegionName::as_str);
        let status = status_class(response.status());
        edge.meter.add(Metric::Requests, &[served_from, method, status], 1);
        edge.meter.seconds(Metric::RequestSeconds, &[served_from, method], began.elapsed().as_secs_f64());
    }
    if let Ok(here) = HeaderValue::from_str(edge.here.as_str()) {
        response.headers_mut().insert(EDGE, here);
    }
    let stays_http = response.status() != StatusCode::SWITCHING_PROTOCOLS;
    if http1 && stays_http && (is_refused || may_change_protocol) {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn status_class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}
