//! Finds the agents of the lab or of production, and asks all of them at once.

use std::{collections::BTreeMap, net::SocketAddr, path::Path, time::Duration};

use isles_agent::ask::{Agent, AskError};
use isles_model::{
    AgentConfig, AuditEntry, OrderRequest, Orders, OrdersAnswer, RegionName, Snapshot, Topology,
};
use tokio::task::JoinSet;

use super::Where;
use crate::{cli::Global, outcome::Failure, running};

/// How long one agent may take to answer. An agent asks the lease store, whose members may be far apart.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// All agents of one application.
pub(crate) struct Agents {
    pub(crate) topology: Topology,
    of: BTreeMap<RegionName, Agent>,
    lab: bool,
}

/// What the agents show at one time.
pub(crate) struct Look {
    /// By those that answer.
    pub(crate) shown: BTreeMap<RegionName, Snapshot>,
    /// As one of them reads them in the lease store; `None`: none could.
    pub(crate) orders: Option<Orders>,
}

impl Agents {
    /// The running lab's, or those that an agent's configuration names.
    ///
    /// # Errors
    /// When no lab runs, or the configuration cannot be read.
    pub(crate) async fn find(global: &Global, place: &Where) -> Result<Self, Failure> {
        if let Some(file) = &place.agent_config {
            let config = read(file)?;
            let peers = config.peers.iter().map(|(region, peer)| (region.clone(), peer.control));
            let controls: Vec<(RegionName, SocketAddr)> =
                peers.chain([(config.region.clone(), config.listen.control)]).collect();
            return Ok(Self::new(config, controls, false));
        }
        let (_, state) = running::lab(global).await?;
        let first = state.regions.first().ok_or_else(|| Failure::message("the lab has no region", ""))?;
        let config = read(&first.config)?;
        let controls = state.regions.iter().map(|region| (region.region.clone(), region.control)).collect();
        Ok(Self::new(config, controls, true))
    }

    fn new(config: AgentConfig, controls: Vec<(RegionName, SocketAddr)>, lab: bool) -> Self {
        let AgentConfig { topology, peer_secret, .. } = config;
        let agent = |address| Agent { address, secret: peer_secret.clone(), within: ANSWER_WITHIN };
        let of = controls.into_iter().map(|(region, address)| (region, agent(address))).collect();
        Self { topology, of, lab }
    }

    /// Where these agents run, in words.
    pub(crate) fn place(&self) -> &'static str {
        if self.lab { "the lab on this machine" } else { "production" }
    }

    /// One of them.
    pub(crate) fn of(&self, region: &RegionName) -> Option<&Agent> {
        self.of.get(region)
    }

    /// Asks all of them, and the lease store through each until one can read it.
    pub(crate) async fn look(&self) -> Look {
        let mut asked = JoinSet::new();
        for (region, agent) in &self.of {
            let (region, agent) = (region.clone(), agent.clone());
            asked.spawn(async move {
                tokio::join!(async { (region, agent.status().await.ok()) }, agent.orders())
            });
        }
        let mut look = Look { shown: BTreeMap::new(), orders: None };
        for ((region, snapshot), orders) in asked.join_all().await {
            look.shown.extend(snapshot.map(|snapshot| (region, snapshot)));
            look.orders = look.orders.or(orders.ok());
        }
        look
    }

    /// What those agents show of themselves that answer within a time.
    pub(crate) async fn shown_within(&self, bound: Duration) -> Vec<Snapshot> {
        let mut asked = JoinSet::new();
        for agent in self.of.values() {
            let agent = agent.clone();
            asked.spawn(async move { tokio::time::timeout(bound, agent.status()).await.ok()?.ok() });
        }
        asked.join_all().await.into_iter().flatten().collect()
    }

    /// Has the first agent that can change the orders, and says which did.
    ///
    /// # Errors
    /// When none could.
    pub(crate) async fn order(&self, request: &OrderRequest) -> Result<(RegionName, OrdersAnswer), Failure> {
        self.first(async |agent| agent.order(request).await).await
    }

    /// The newest audit entries, from the first agent that can read them.
    ///
    /// # Errors
    /// When none can.
    pub(crate) async fn audit(&self, at_most: u32) -> Result<Vec<AuditEntry>, Failure> {
        Ok(self.first(async |agent| agent.audit(at_most).await).await?.1)
    }

    async fn first<T>(
        &self,
        ask: impl AsyncFn(&Agent) -> Result<T, AskError>,
    ) -> Result<(RegionName, T), Failure> {
        let mut last = None;
        for (region, agent) in &self.of {
            match ask(agent).await {
                Ok(answer) => return Ok((region.clone(), answer)),
                Err(error) => last = Some(error),
            }
        }
        let help = "isles status shows which agents answer; the lease store needs a majority of its members";
        match last {
            Some(error) => Err(Failure::with_help(error, help)),
            None => Err(Failure::message("no agent is known", help)),
        }
    }
}

fn read(file: &Path) -> Result<AgentConfig, Failure> {
    let failed = |error: std::io::Error| {
        Failure::with_help(
            error,
            format!("{} is an agent's configuration; its owner may read it", file.display()),
        )
    };
    let text = std::fs::read(file).map_err(failed)?;
    serde_json::from_slice(&text).map_err(Failure::new)
}
