//! Lets the app's role into this region's database only while the region may write.
//!
//! A task and a session of its own, so that no copy, dump or promotion can delay a fence. It acts on what is
//! ordered, what has been promoted and the time; it decides nothing. The gate in front shuts first; this door
//! holds also against whoever goes round the gate.
//!
//! The door has a key too: the app's role has another password in every epoch ([`isles_model::EpochSecret`]), set
//! as the door opens. A gate that knows only an older epoch does not get in, and neither does whoever knows nothing
//! but the password in the app's `DATABASE_URL`.
//!
//! The door has an end inside PostgreSQL too (`VALID UNTIL`), which moves on with the lease: a region that was lost
//! and comes back finds its own door shut before its agent has said a word.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use isles_model::{DatabaseOrder, Epoch, Moment};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    admission,
    crash::Footing,
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose, ident, literal},
    run::World,
    verifier::{SALT_BYTES, Verifier},
};

/// How long one move of the door may take before its session counts as lost.
const MOVE_MAX: Duration = Duration::from_secs(2);
/// How often a shut door is checked for sessions that slipped through while it closed.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// Pause before the next attempt when the database does not answer.
const RETRY_AFTER: Duration = Duration::from_millis(100);
/// PostgreSQL is told a later end when the right has grown by so much.
const EXTEND_BY: Duration = Duration::from_millis(400);
/// The latest end that PostgreSQL is told, from now.
const END_MAX: Duration = Duration::from_secs(86_400);

/// Where the door should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// The app's role may not log in, and none of its sessions is left.
    Shut,
    /// The app's role may log in until the moment given.
    Open { epoch: Epoch, until: Moment },
}

/// Open only for a promoted epoch that is still ordered and has not run out.
fn wish(order: &DatabaseOrder, promoted: Option<Epoch>, now: Moment) -> Door {
    match *order {
        DatabaseOrder::Write { epoch, until, .. } if promoted == Some(epoch) && now < until => {
            Door::Open { epoch, until }
        }
        DatabaseOrder::Write { .. } | DatabaseOrder::Fence { .. } | DatabaseOrder::Follow { .. } => {
            Door::Shut
        }
    }
}

/// Keeps the door until told to stop; leaves it shut.
pub(crate) async fn run(
    world: Arc<World>,
    mut orders: watch::Receiver<DatabaseOrder>,
    mut promoted: watch::Receiver<Option<Epoch>>,
    mut died: watch::Receiver<Option<Footing>>,
    stop: CancellationToken,
) {
    let mut room = world.room.changes();
    let mut last_dead = None;
    let mut keeper = Keeper { world, link: None, open: None, admits: None };
    while !stop.is_cancelled() {
        let dead = *died.borrow_and_update();
        let named_nobody = keeper.admits == Some(true) && !keeper.world.admits.load(Ordering::Acquire);
        if dead.is_some() && dead != last_dead || named_nobody {
            // Nobody is let in after its next start, until the door is opened anew.
            (keeper.link, keeper.open, keeper.admits) = (None, None, None);
        }
        last_dead = dead;
        let wish = if *room.borrow_and_update() {
            Door::Shut
        } else {
            let order = orders.borrow_and_update().clone();
            wish(&order, *promoted.borrow_and_update(), (keeper.world.clock)())
        };
        let pause = match keeper.bring_to(wish).await {
            Ok(()) => keeper.until_next_look(wish),
            Err(error) => {
                debug!(error = %error, "The database's door is not as it should be yet.");
                keeper.world.room.learn(&error);
                keeper.link = None;
                if keeper.world.room.is_lost() { CHECK_EVERY } else { RETRY_AFTER }
            }
        };
        tokio::select! {
            changed = orders.changed() => if changed.is_err() { break },
            changed = promoted.changed() => if changed.is_err() { break },
            changed = died.changed() => if changed.is_err() { break },
            changed = room.changed() => if changed.is_err() { break },
            () = stop.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if let Err(error) = keeper.bring_to(Door::Shut).await {
        warn!(error = %error, "The database could not be fenced while stopping.");
    }
}

struct Keeper {
    world: Arc<World>,
    link: Option<Link>,
    /// As what PostgreSQL was told; `None`: shut, or not known to be open.
    open: Option<Opened>,
    /// Whether the file of those who may log in names the app; `None`: not known.
    admits: Option<bool>,
}

#[derive(Clone, Copy)]
struct Opened {
    epoch: Epoch,
    until: Moment,
}

impl Opened {
    fn covers(self, epoch: Epoch, until: Moment) -> bool {
        self.epoch == epoch && until.since(self.until) < EXTEND_BY
    }
}

impl Keeper {
    async fn bring_to(&mut self, door: Door) -> Result<(), DatabaseError> {
        match door {
            Door::Open { epoch, until } if self.open.is_some_and(|open| open.covers(epoch, until)) => Ok(()),
            Door::Open { epoch, until } => {
                let was_open = self.open.is_some_and(|open| open.epoch == epoch);
                let right = until.since((self.world.clock)());
                // Because what a crash takes back of an extension is only an earlier end, it need not be on disk.
                let statement = if was_open {
                    end_statement(&self.world, right, "off")
                } else {
                    let end = end_statement(&self.world, right, "local");
                    format!("{}; {end}", open_statement(&self.world, epoch)?)
                };
                self.send(&statement, "opening the door").await?;
                if !was_open {
                    self.admit(true).await?;
                }
                self.open = Some(Opened { epoch, until });
                if (self.world.clock)() >= until {
                    return self.shut().await;
                }
                if was_open {
                    return Ok(());
                }
                info!(%epoch, "The app's role may log in.");
                self.world.changed.notify_waiters();
                Ok(())
            }
            Door::Shut => self.shut().await,
        }
    }

    /// A database that can write nothing cannot change the role; the file and the sessions are seen to all the same.
    async fn shut(&mut self) -> Result<(), DatabaseError> {
        let was_open = self.open.is_some();
        let admitted = self.admit(false).await;
        let changed = self.send(&shut_statement(&self.world), "shutting the door").await;
        self.end_sessions().await?;
        admitted.and(changed)?;
        self.open = None;
        if was_open {
            info!("The app's role is fenced.");
            self.world.changed.notify_waiters();
        }
        Ok(())
    }

    /// Names the app among those who may log in, or no longer; where the agent can write that file.
    async fn admit(&mut self, admits: bool) -> Result<(), DatabaseError> {
        let Some(files) = self.world.config.database.files.clone() else { return Ok(()) };
        if self.admits == Some(admits) {
            return Ok(());
        }
        self.admits = None;
        self.world.admits.store(false, Ordering::Release);
        let app = self.world.config.database.app_user.clone();
        admission::write(&files.admitted, admits.then_some(app.as_str()))?;
        let link = self.link().await?;
        admission::reload(link).await?;
        self.admits = Some(admits);
        self.world.admits.store(admits, Ordering::Release);
        Ok(())
    }

    /// Ends the app's sessions and waits until none is left: one that was logging in while the door closed shows
    /// up a moment later, so the door is looked at again while it is shut.
    async fn end_sessions(&mut self) -> Result<(), DatabaseError> {
        let app = self.world.config.database.app_user.clone();
        let link = self.link().await?;
        let end_all = async {
            while link
                .query_one(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1",
                    &[&app],
                )
                .await
                .doing("ending the app's sessions")?
                .get::<_, i64>(0)
                > 0
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Ok(())
        };
        within(MOVE_MAX, "ending the app's sessions", end_all).await
    }

    async fn send(&mut self, sql: &str, doing: &'static str) -> Result<(), DatabaseError> {
        let link = self.link().await?;
        within(MOVE_MAX, doing, link.batch(doing, sql)).await
    }

    async fn link(&mut self) -> Result<&Link, DatabaseError> {
        if self.link.as_ref().is_none_or(|link| link.is_closed()) {
            self.link = Some(Link::cluster(&self.world.config.database, Purpose::Fence).await?);
        }
        Ok(self.link.as_ref().expect("opened above"))
    }

    fn until_next_look(&self, door: Door) -> Duration {
        match door {
            Door::Shut => CHECK_EVERY,
            Door::Open { until, .. } => until.since((self.world.clock)()),
        }
    }
}

/// The comment tells whoever looks, and no secret.
fn open_statement(world: &World, epoch: Epoch) -> Result<String, DatabaseError> {
    let (app, name) = (ident(&world.config.database.app_user), ident(&world.config.database.name));
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|_| DatabaseError::Refused("no random numbers".to_owned()))?;
    let verifier = Verifier::of_key(&world.config.secret.app_password(epoch), salt);
    Ok(format!(
        "GRANT CONNECT ON DATABASE {name} TO {app}; ALTER ROLE {app} PASSWORD {}; \
         COMMENT ON ROLE {app} IS 'isles: epoch {epoch}'",
        literal(&verifier.to_string()),
    ))
}

/// Lets the app's role in for so long by the server's own clock.
fn end_statement(world: &World, right: Duration, synchronous_commit: &str) -> String {
    let body = format!(
        "BEGIN
           PERFORM set_config('synchronous_commit', '{synchronous_commit}', true);
           EXECUTE format({alter}, clock_timestamp() + interval '{right} milliseconds');
         END",
        alter = literal(&format!(
            "ALTER ROLE {} LOGIN VALID UNTIL %L",
            ident(&world.config.database.app_user).replace('%', "%%")
        )),
        right = right.min(END_MAX).as_millis(),
    );
    format!("DO {}", literal(&body))
}

/// Compares, then changes; a role or database that does not exist yet needs no fence.
fn shut_statement(world: &World) -> String {
    let (app, name) = (&world.config.database.app_user, &world.config.database.name);
    let body = format!(
        "BEGIN
           IF EXISTS (SELECT FROM pg_roles WHERE rolname = {app_text} AND rolcanlogin) THEN
             ALTER ROLE {app} NOLOGIN;
           END IF;
           IF EXISTS (SELECT FROM pg_roles WHERE rolname = {app_text})
              AND EXISTS (SELECT FROM pg_database WHERE datname = {name_text}
                          AND has_database_privilege({app_text}, oid, 'CONNECT')) THEN
             REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, {app};
           END IF;
         END",
        app = ident(app),
        name = ident(name),
        app_text = literal(app),
        name_text = literal(name),
    );
    format!("DO {}", literal(&body))
}

#[cfg(test)]
mod tests {
    use isles_model::{Because, CommitOrder};

    use super::*;

    const UNTIL: Moment = Moment(Duration::from_secs(10));

    #[test]
    fn the_door_opens_only_for_a_promoted_epoch_that_has_not_run_out() {
        let write = DatabaseOrder::Write { epoch: Epoch(3), until: UNTIL, commit: CommitOrder::default() };
        let open = Door::Open { epoch: Epoch(3), until: UNTIL };
        let early = Moment(Duration::from_secs(9));
        assert_eq!(wish(&write, Some(Epoch(3)), early), open);
        assert_eq!(wish(&write, Some(Epoch(2)), early), Door::Shut);
        assert_eq!(wish(&write, None, early), Door::Shut);
        assert_eq!(wish(&write, Some(Epoch(3)), UNTIL), Door::Shut);
        let fence = DatabaseOrder::Fence { because: Because::LeaseLapsed };
        assert_eq!(wish(&fence, Some(Epoch(3)), early), Door::Shut);
    }
}
