//! Tries every region's database itself, past every gate, as the app's role: does it take writes just now?
//!
//! A try is a true write that is rolled back. Where the role may not log in and no session of it is left, PostgreSQL
//! itself refuses, and that is a refused try; asking the catalogue for it costs a tenth of a login.

use std::{sync::Arc, time::Duration};

use isles_model::Epoch;
use tokio::task::JoinSet;

use super::{
    ground::{Ground, Place},
    overlap::Try,
    record::Record,
    session::{Session, SessionError},
    table::Table,
};

/// From the begin of one try to the next.
const PACE: Duration = Duration::from_millis(10);
/// How long one try may take.
const TRY_WAIT: Duration = Duration::from_millis(500);

/// Starts a prober for every region.
pub(super) fn start(ground: &Ground, record: &Arc<Record>, tasks: &mut JoinSet<()>) {
    for place in &ground.places {
        tasks.spawn(try_on(place.clone(), Arc::clone(record)));
    }
}

async fn try_on(place: Place, record: Arc<Record>) {
    let mut prober = Prober { place, table: record.table.clone(), admin: None, app: None };
    let mut begun = record.now();
    while record.pause(begun, PACE).await {
        begun = record.now();
        let accepted = prober.accepts().await;
        record.tried(&prober.place.region, Try { begun, ended: record.now(), accepted });
    }
}

struct Prober {
    place: Place,
    table: Table,
    admin: Option<Session>,
    app: Option<Session>,
}

impl Prober {
    async fn accepts(&mut self) -> bool {
        // Because a session that was let in may outlive the door, it is tried whatever the catalogue says.
        if let Some(app) = self.app.take_if(|app| !app.is_closed()) {
            let accepted =
                app.send(&self.table.insert_and_roll_back(&self.place.region), TRY_WAIT).await.is_ok();
            self.app = accepted.then_some(app);
            return accepted;
        }
        let Ok(Some(epoch)) = self.door_is_open_for().await else { return false };
        let Ok(app) = Session::open(&self.place.app_past_gates(epoch), TRY_WAIT).await else { return false };
        let accepted = app.send(&self.table.insert_and_roll_back(&self.place.region), TRY_WAIT).await.is_ok();
        self.app = accepted.then_some(app);
        accepted
    }

    /// The epoch whose credential the app's role has, if it may log in.
    async fn door_is_open_for(&mut self) -> Result<Option<Epoch>, SessionError> {
        if self.admin.as_ref().is_none_or(Session::is_closed) {
            self.admin = Some(Session::open(&self.place.admin(), TRY_WAIT).await?);
        }
        let database = &self.place.database;
        let sql = format!(
            "SELECT substring(shobj_description(r.oid, 'pg_authid') FROM '^isles: epoch ([0-9]+)$') \
             FROM pg_roles r, pg_database d WHERE r.rolname = '{}' AND r.rolcanlogin \
             AND d.datname = '{}' AND has_database_privilege(r.oid, d.oid, 'CONNECT')",
            database.app_user, database.name
        );
        let admin = self.admin.as_ref().expect("opened above");
        let rows = admin.column(&sql, TRY_WAIT).await;
        if rows.is_err() {
            self.admin = None;
        }
        Ok(rows?.first().and_then(|epoch| epoch.parse().ok()).map(Epoch))
    }
}
