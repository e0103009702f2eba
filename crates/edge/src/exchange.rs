//! One request from its head to its answer: asks where it goes, brings it there, and tries elsewhere when that fails
//! and can do no harm.

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{
    body::Incoming,
    upgrade::{self, OnUpgrade},
};
use isles_model::{Because, Epoch, Metric, Plan, RegionName};
use tokio::{sync::watch, time::Instant};

use crate::{
    answer::{self, Own, REGION},
    attempt::{Outcome, Way, attempt},
    body::{Answer, Gone, NotKept, Outgoing, Payload},
    edge::Edge,
    hold::{End, Line, Place},
    hop,
    link::Link,
    peer::{NotServed, Stamp},
    pool::{Lease, Reuse},
    request::Asked,
    route::{Miss, Question, Tried, Verdict},
    silence::{Waiting, instance_gone, region_gone},
    tunnel::tunnel,
};

/// How often a request that may be repeated is sent before its client hears of the failure.
const SENT_MAX: u32 = 3;
/// How often a request is brought somewhere between two waits, not sent and not served included.
const ATTEMPTS_MAX: u32 = 64;
/// How long connecting to an app instance of this region may take.
const LOCAL_CONNECT_MAX: Duration = Duration::from_secs(1);
/// How long a safe request is held while no region may answer it.
const HOLD_READS_MAX: Duration = Duration::from_secs(5);

/// One request under way.
pub(crate) struct Exchange<'a> {
    edge: &'a Arc<Edge>,
    asked: Asked,
    /// From the edge that sent it on, if one did.
    stamp: Option<Stamp>,
    /// `Upgrade`, when it asks for another protocol.
    upgrade: Option<HeaderValue>,
    on_upgrade: Option<OnUpgrade>,
    payload: Payload,
    tried: Tried,
    /// How often it may have reached an app.
    sent: u32,
    hold_until: Option<Instant>,
}

/// A request in line.
struct Held {
    place: Place,
    /// Has seen every plan it has asked under.
    plans: watch::Receiver<Plan>,
    asked: bool,
}

/// The region whose app answered, and its answer.
type Answered = (RegionName, Response<Answer>);

impl<'a> Exchange<'a> {
    pub(crate) fn new(
        edge: &'a Arc<Edge>,
        client: IpAddr,
        mut asked: Asked,
        stamp: Option<Stamp>,
        incoming: Incoming,
        on_upgrade: OnUpgrade,
    ) -> Self {
        let upgrade = asked.wants_upgrade().then(|| asked.headers.get(header::UPGRADE).cloned()).flatten();
        hop::clean_request(&mut asked.headers);
        if stamp.is_none() {
            hop::stamp_origin(&mut asked.headers, client, &asked.host);
        }
        let on_upgrade = upgrade.is_some().then_some(on_upgrade);
        let payload = Payload::new(incoming);
        let tried = Tried::default();
        Self { edge, asked, stamp, upgrade, on_upgrade, payload, tried, sent: 0, hold_until: None }
    }

    /// Gives the region whose app answered, and its answer; or this edge's own.
    pub(crate) async fn run(&mut self) -> Result<Answered, Own> {
        let mut held: Option<Held> = None;
        let mut attempts = 0;
        while attempts < ATTEMPTS_MAX {
            attempts += 1;
            let mut verdict = self.edge.route(self.question(), &self.tried);
            while let Verdict::Hold { because } = verdict {
                self.wait(&mut held, because).await?;
                attempts = 0;
                verdict = self.edge.route(self.question(), &self.tried);
            }
            // Because a slow answer to the first must not keep the others in line.
            held = None;
            let answered = match verdict {
                Verdict::Local { instance } => self.local(instance).await?,
                Verdict::Forward { region, epoch } => self.forward(region, epoch).await?,
                Verdict::NotServed(why) => return Err(answer::not_served(why)),
                Verdict::Misdirected { writer } => return Err(answer::misdirected(&writer)),
                Verdict::Loop => return Err(answer::looped()),
                Verdict::Hold { .. } => None,
            };
            if let Some(answered) = answered {
                if self.hold_until.is_some() {
                    self.line().count_end(End::Released);
                }
                return Ok(answered);
            }
        }
        Err(answer::unavailable("too_many_attempts", "No region could serve the request.".to_owned()))
    }

    fn question(&self) -> Question<'_> {
        Question { write: !self.asked.is_safe(), stamp: self.stamp.as_ref() }
    }

    fn line(&self) -> &Arc<Line> {
        if self.asked.is_safe() { &self.edge.held_reads } else { &self.edge.held_writes }
    }

    fn has_tried(&self) -> bool {
        !self.tried.instances.is_empty() || !self.tried.regions.is_empty()
    }

    /// Waits in line until it may ask again; an error when it may not or must not wait any longer.
    async fn wait(&mut self, held: &mut Option<Held>, because: Because) -> Result<(), Own> {
        let hold_max = if self.asked.is_safe() {
            HOLD_READS_MAX.min(self.edge.hold_writes)
        } else {
            self.edge.hold_writes
        };
        let until = *self.hold_until.get_or_insert_with(|| Instant::now() + hold_max);
        if held.is_none() {
            self.keep_to_hold(because).await?;
            let full = || answer::unavailable("held_full", format!("Too many requests wait: {because}."));
            let place = self.line().enter().ok_or_else(full)?;
            let mut plans = self.edge.plans.clone();
            plans.mark_unchanged();
            // Because one that has just failed must not be tried again before anything has changed.
            let asked = self.has_tried();
            *held = Some(Held { place, plans, asked });
        }
        let Some(Held { place, plans, asked }) = held.as_mut() else { return Ok(()) };
        let may_ask = tokio::select! {
            may_ask = place.may_ask(asked, plans, until) => may_ask,
            () = self.edge.stop.cancelled() => {
                let sentence = "Nothing was done. This region's edge is stopping: ask again.";
                return Err(answer::unavailable("stopping", sentence.to_owned()));
            }
        };
        self.tried = Tried::default();
        if may_ask {
            return Ok(());
        }
        *held = None;
        self.line().count_end(End::TimedOut);
        let waited = hold_max.as_secs_f64();
        let sentence =
            format!("Nothing was done. No region could take the request for {waited} s: {because}.");
        Err(answer::unavailable("held_timed_out", sentence))
    }

    /// A held request's body is kept here: the client may have no patience, and its bytes must not wait in sockets.
    async fn keep_to_hold(&mut self, because: Because) -> Result<(), Own> {
        match self.payload.keep(&self.edge.room).await {
            Ok(()) => Ok(()),
            Err(NotKept::Broken) => Err(answer::incomplete()),
            Err(NotKept::TooLong | NotKept::NoRoom | NotKept::Spent) => {
                self.line().count_end(End::RefusedFull);
                let sentence = format!("Nothing was done, and the request is too large to wait: {because}.");
                Err(answer::unavailable("too_large_to_hold", sentence))
            }
        }
    }

    /// To an app instance here. `None`: try elsewhere.
    async fn local(&mut self, instance: usize) -> Result<Option<Answered>, Own> {
        if self.asked.is_idempotent() {
            self.keep_to_repeat().await?;
        }
        let Some(upstream) = self.edge.instances.get(instance).cloned() else {
            // Because a plan may name an instance that this edge was not told of.
            self.tried.instances.insert(instance);
            return Ok(None);
        };
        let request = self.compose(None);
        let (tried, stamp) = (self.tried.clone(), self.stamp.clone());
        let safe = self.asked.is_safe();
        let gone = instance_gone(self.edge.clone(), instance, tried, stamp);
        let gone = async move { if safe { gone.await } else { std::future::pending().await } };
        let reuse = self.reuse();
        let mut payload = std::mem::replace(&mut self.payload, Payload::Empty);
        let way = Way { upstream: &upstream, reuse, connect_within: LOCAL_CONNECT_MAX, prove: None };
        let outcome = attempt(way, request, &mut payload, gone).await;
        self.payload = payload;
        match outcome {
            Outcome::Answered(mut response, lease) => {
                hop::clean_response(response.headers_mut());
                if let Ok(here) = HeaderValue::from_str(self.edge.here.as_str()) {
                    response.headers_mut().insert(REGION, here);
                }
                Ok(Some((self.edge.here.clone(), self.pass(response, lease, None)?)))
            }
            Outcome::NotSent(reason) => {
                if reason != "busy" {
                    self.edge.mark_down(instance);
                }
                self.tried.instances.insert(instance);
                self.retried(reason);
                Ok(None)
            }
            Outcome::Lost(reason) => {
                self.tried.instances.insert(instance);
                self.lost(reason)?;
                Ok(None)
            }
        }
    }

    /// To another region's edge. `None`: try elsewhere.
    async fn forward(&mut self, region: RegionName, epoch: Option<Epoch>) -> Result<Option<Answered>, Own> {
        self.keep_to_repeat().await?;
        let Some(link) = self.edge.links.get(&region).cloned() else {
            // Because a plan may name a region that this edge has no address of.
            self.tried.regions.insert(region, Miss::Silent);
            return Ok(None);
        };
        let rtt = self.edge.rtt(&region);
        let request = self.compose(Some(epoch));
        let waiting = if self.asked.is_safe() { Waiting::CanGoElsewhere } else { Waiting::CanOnlyEnd };
        let gone = region_gone(self.edge.clone(), region.clone(), link.clone(), waiting);
        let reuse = self.reuse();
        let mut payload = std::mem::replace(&mut self.payload, Payload::Empty);
        // Because between regions a relay may accept a connection for an edge that is gone.
        let prove = (!self.asked.is_idempotent()).then_some((&*link, rtt));
        let way = Way { upstream: link.upstream(), reuse, connect_within: Link::connect_within(rtt), prove };
        let outcome = attempt(way, request, &mut payload, gone).await;
        self.payload = payload;
        if !matches!(outcome, Outcome::NotSent(_)) {
            self.edge.meter.add(Metric::Forwarded, &[region.as_str()], 1);
        }
        match outcome {
            Outcome::Answered(mut response, lease) => {
                if let Some(why) = NotServed::read(response.headers()) {
                    drop(Answer::streamed(response.into_body(), lease, None));
                    self.tried.regions.insert(region, Miss::NotServed(why));
                    return self.not_served(why);
                }
                hop::remove_hop_by_hop(response.headers_mut());
                let gone: Gone =
                    Box::pin(region_gone(self.edge.clone(), region.clone(), link, Waiting::CanOnlyEnd));
                Ok(Some((region, self.pass(response, lease, Some(gone))?)))
            }
            Outcome::NotSent(reason) => {
                if reason != "busy" {
                    link.mark_down();
                }
                self.tried.regions.insert(region, Miss::Silent);
                self.retried(reason);
                Ok(None)
            }
            Outcome::Lost(reason) => {
                self.tried.regions.insert(region, Miss::Silent);
                self.lost(reason)?;
                Ok(None)
            }
        }
    }

    fn not_served(&mut self, why: NotServed) -> Result<Option<Answered>, Own> {
        if self.payload.at_hand() {
            self.retried(why.as_str());
            return Ok(None);
        }
        let sentence = "Nothing was done. The writer has moved and the request is too large to send again.";
        Err(answer::unavailable("not_served", sentence.to_owned()))
    }

    /// It may have been carried out: it is sent again only if that does no harm.
    fn lost(&mut self, reason: &'static str) -> Result<(), Own> {
        self.sent += 1;
        let harmless = self.asked.is_idempotent() && self.payload.at_hand() && self.sent < SENT_MAX;
        if harmless && self.edge.repeats.take() {
            self.retried(reason);
            Ok(())
        } else {
            Err(answer::unknown(reason, self.asked.is_safe()))
        }
    }

    fn retried(&self, reason: &'static str) {
        self.edge.meter.add(Metric::Retried, &[reason], 1);
    }

    fn reuse(&self) -> Reuse {
        if self.asked.is_idempotent() { Reuse::Any } else { Reuse::Young }
    }

    /// Keeps a short body, so that the request can be sent again. A long one is streamed.
    async fn keep_to_repeat(&mut self) -> Result<(), Own> {
        match self.payload.keep(&self.edge.room).await {
            Err(NotKept::Broken) => Err(answer::incomplete()),
            Ok(()) | Err(NotKept::TooLong | NotKept::NoRoom | NotKept::Spent) => Ok(()),
        }
    }

    /// The request as it goes out: to a peer with a stamp, to an app without.
    fn compose(&mut self, to_peer: Option<Option<Epoch>>) -> Request<Outgoing> {
        let mut request = Request::new(self.payload.lend());
        *request.method_mut() = self.asked.method.clone();
        *request.uri_mut() = self.asked.target.clone();
        let mut headers = self.asked.headers.clone();
        if let Some(protocol) = &self.upgrade {
            headers.insert(header::UPGRADE, protocol.clone());
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        if matches!(request.body(), Outgoing::Live(_)) && !headers.contains_key(header::CONTENT_LENGTH) {
            // Because hyper would take a GET of unknown length for one without a body.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        if let Some(epoch) = to_peer {
            let hops = self.stamp.as_ref().map_or(0, |stamp| stamp.hops).saturating_add(1);
            let stamp = Stamp { hops, origin: self.edge.here.clone(), epoch };
            self.edge.seal.stamp(&stamp, &self.asked.method, &self.asked.target, &mut headers);
        }
        *request.headers_mut() = headers;
        request
    }

    /// The response as it goes to the client; when both sides change the protocol, a tunnel.
    /// Both are cut off when `gone` ends.
    fn pass(
        &mut self,
        mut response: Response<Incoming>,
        lease: Lease,
        gone: Option<Gone>,
    ) -> Result<Response<Answer>, Own> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let (parts, incoming) = response.into_parts();
            return Ok(Response::from_parts(parts, Answer::streamed(incoming, lease, gone)));
        }
        let (Some(protocol), Some(client)) = (self.upgrade.take(), self.on_upgrade.take()) else {
            return Err(answer::unknown("unasked_upgrade", self.asked.is_safe()));
        };
        let upstream = upgrade::on(&mut response);
        let cut = self.edge.cut.clone();
        let end = async move {
            match gone {
                Some(gone) => tokio::select! { _ = gone => {}, () = cut.cancelled() => {} },
                None => cut.cancelled().await,
            }
        };
        self.edge.tunnels.spawn(tunnel(client, upstream, lease, end));
        let (mut parts, _) = response.into_parts();
        parts.headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        parts.headers.insert(header::UPGRADE, protocol);
        Ok(Response::from_parts(parts, Answer::Own(None)))
    }
}
