//! Makes the app's database where it is missing, and makes it anew before a fresh copy.

use std::time::Duration;

use isles_model::Epoch;
use tokio_postgres::{Client, error::SqlState};
use tracing::info;

use crate::{
    bookkeeping,
    error::{DatabaseError, Doing, within},
    link::{Link, Purpose, ident, literal},
    preflight, roles,
    run::World,
    slots, subscription,
};

/// How long dropping a database may take: files are unlinked, a checkpoint is made.
const DROP_MAX: Duration = Duration::from_secs(60);
/// Letters of a database's name kept when it is set aside: PostgreSQL's names end at 63 bytes.
const ASIDE_PREFIX_CHARS: usize = 10;

/// Encoding and collation of a database, as `CREATE DATABASE` takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    encoding: String,
    collate: String,
    ctype: String,
    icu: Option<String>,
}

impl Shape {
    /// That of the database a session is in.
    pub(crate) async fn of(client: &Client) -> Result<Self, DatabaseError> {
        let row = client
            .query_one(
                "SELECT pg_encoding_to_char(encoding)::text, datcollate::text, datctype::text,
                        CASE WHEN datlocprovider = 'i' THEN
                          coalesce(to_jsonb(d) ->> 'daticulocale', to_jsonb(d) ->> 'datlocale') END
                 FROM pg_database d WHERE datname = current_database()",
                &[],
            )
            .await
            .doing("reading a database's encoding")?;
        Ok(Self { encoding: row.get(0), collate: row.get(1), ctype: row.get(2), icu: row.get(3) })
    }

    fn clause(&self) -> String {
        let mut clause = format!(
            "TEMPLATE template0 ENCODING {} LC_COLLATE {} LC_CTYPE {}",
            literal(&self.encoding),
            literal(&self.collate),
            literal(&self.ctype)
        );
        if let Some(icu) = &self.icu {
            clause.push_str(&format!(" LOCALE_PROVIDER icu ICU_LOCALE {}", literal(icu)));
        }
        clause
    }
}

/// Makes roles, database and bookkeeping where they are missing, and opens a session with the database.
pub(crate) async fn ensure(world: &World) -> Result<Link, DatabaseError> {
    let cluster = Link::cluster(&world.config.database, Purpose::Reconcile).await?;
    end_predecessors(&cluster).await?;
    look_over(&cluster, world).await?;
    let own = Link::own(&world.config.database, Purpose::Reconcile).await?;
    furnish(&own, world).await?;
    Ok(own)
}

/// Opens a session with a database that holds rows already, without the looks of [`ensure`]: a promotion does not wait
/// for them, and [`catch_up`] takes them after it.
pub(crate) async fn open(world: &World) -> Result<Link, DatabaseError> {
    if let Ok(own) = Link::own(&world.config.database, Purpose::Reconcile).await {
        end_predecessors(&own).await?;
        let holds_rows = bookkeeping::node(&*own).await.is_ok_and(|node| node.lineage.epoch > Epoch::NONE);
        if holds_rows && !roles::any_superuser(&own, &world.config.database).await? {
            return Ok(own);
        }
    }
    ensure(world).await
}

/// What [`open`] left out.
pub(crate) async fn catch_up(world: &World, own: &Link) -> Result<(), DatabaseError> {
    look_over(own, world).await?;
    furnish(own, world).await
}

/// Looks at the server's settings, and at the roles and the database.
async fn look_over(cluster: &Link, world: &World) -> Result<(), DatabaseError> {
    let config = &world.config.database;
    preflight::look(cluster, world).await?;
    roles::ensure(cluster, config).await?;
    let owner: Option<String> = cluster
        .query_opt(
            "SELECT pg_get_userbyid(datdba)::text FROM pg_database WHERE datname = $1",
            &[&config.name],
        )
        .await
        .doing("looking for the database")?
        .map(|row| row.get(0));
    match owner {
        None => create(cluster, world, None).await,
        Some(owner) if owner != config.app_user => {
            let change =
                format!("ALTER DATABASE {} OWNER TO {}", ident(&config.name), ident(&config.app_user));
            cluster.batch("giving the database to the app's role", &change).await
        }
        Some(_) => Ok(()),
    }
}

/// Drops the app's database with everything in it and makes an empty one. Readers are ended; until the new copy
/// is complete nobody is sent here.
pub(crate) async fn anew(world: &World, shape: &Shape) -> Result<Link, DatabaseError> {
    let config = &world.config.database;
    let cluster = Link::cluster(config, Purpose::Reconcile).await?;
    let exists = cluster
        .query_opt("SELECT FROM pg_database WHERE datname = $1", &[&config.name])
        .await
        .doing("looking for the database")?
        .is_some();
    if exists {
        detach(world, &cluster).await?;
        let gone = async {
            let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", ident(&config.name));
            cluster.batch("dropping the old copy", &statement).await
        };
        within(DROP_MAX, "dropping the old copy", gone).await?;
        info!("Dropped the old copy of the database.");
    }
    create(&cluster, world, Some(shape)).await?;
    let own = Link::own(config, Purpose::Reconcile).await?;
    furnish(&own, world).await?;
    Ok(own)
}

/// Puts the app's database away under another name, and says which. At most one is kept: a second time it is
/// refused until somebody has looked at the first.
pub(crate) async fn set_aside(world: &World, own: Link, epoch: Epoch) -> Result<String, DatabaseError> {
    let name = &world.config.database.name;
    let prefix = format!("{}_alone_e", name.chars().take(ASIDE_PREFIX_CHARS).collect::<String>());
    let cluster = Link::cluster(&world.config.database, Purpose::Reconcile).await?;
    drop(own);
    let kept = cluster
        .query_opt("SELECT datname::text FROM pg_database WHERE datname ^@ $1", &[&prefix])
        .await
        .doing("looking for databases set aside")?;
    if let Some(row) = kept {
        let kept: &str = row.get(0);
        return Err(DatabaseError::Refused(format!(
            "what this region alone wrote cannot be listed, and an earlier database {kept} is still set aside: \
             look at it and drop it"
        )));
    }
    detach(world, &cluster).await?;
    let aside = format!("{prefix}{epoch}");
    let moved = async {
        loop {
            cluster
                .execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", &[name])
                .await
                .doing("ending sessions of the old database")?;
            let statement = format!("ALTER DATABASE {} RENAME TO {}", ident(name), ident(&aside));
            match cluster.batch_execute(&statement).await {
                Ok(()) => return Ok(()),
                Err(error) if error.code() == Some(&SqlState::OBJECT_IN_USE) => {}
                Err(source) => {
                    return Err(DatabaseError::Query { doing: "setting the old database aside", source });
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    within(DROP_MAX, "setting the old database aside", moved).await?;
    Ok(aside)
}

/// Drops the slots that followers of this region's former writing have left.
pub(crate) async fn drop_slots(world: &World, cluster: &Client) -> Result<(), DatabaseError> {
    let rows = cluster
        .query(
            "SELECT slot_name::text FROM pg_replication_slots WHERE database = $1",
            &[&world.config.database.name],
        )
        .await
        .doing("listing replication slots")?;
    for row in rows {
        slots::drop_slot(cluster, row.get(0)).await?;
    }
    Ok(())
}

/// Frees the app's database from its subscription and its slots.
async fn detach(world: &World, cluster: &Link) -> Result<(), DatabaseError> {
    let own = Link::own(&world.config.database, Purpose::Reconcile).await?;
    if subscription::exists(&own).await? {
        subscription::disable(&own).await?;
        own.batch("removing the subscription", subscription::REMOVE).await?;
    }
    drop_slots(world, cluster).await
}

async fn create(cluster: &Client, world: &World, shape: Option<&Shape>) -> Result<(), DatabaseError> {
    let config = &world.config.database;
    let statement = format!(
        "CREATE DATABASE {} OWNER {} {}",
        ident(&config.name),
        ident(&config.app_user),
        shape.map(Shape::clause).unwrap_or_default()
    );
    match cluster.batch_execute(&statement).await {
        // Somebody else has made it in the same moment; whose it is, the next look finds out.
        Err(error) if shape.is_none() && error.code().is_some_and(is_there_already) => {}
        made => made.doing("creating the database")?,
    }
    // The app's role comes in through the fence only; the others may always connect.
    let grants = format!(
        "REVOKE CONNECT ON DATABASE {name} FROM PUBLIC, {app}; GRANT CONNECT ON DATABASE {name} TO {read}, {stream}",
        name = ident(&config.name),
        app = ident(&config.app_user),
        read = ident(&config.read_user),
        stream = ident(&config.replication_user)
    );
    cluster.batch_execute(&grants).await.doing("granting access to the database")
}

/// `CREATE DATABASE` says one or the other, as the other one's transaction has ended or is about to.
fn is_there_already(code: &SqlState) -> bool {
    [SqlState::DUPLICATE_DATABASE, SqlState::UNIQUE_VIOLATION].contains(code)
}

async fn furnish(own: &Link, world: &World) -> Result<(), DatabaseError> {
    let config = &world.config.database;
    bookkeeping::ensure(own, &world.config.region).await?;
    let (name, app) = (ident(&config.name), ident(&config.app_user));
    let statement = format!(
        "DO $isles$ BEGIN
           IF EXISTS (SELECT FROM pg_namespace WHERE nspname = 'public' AND nspowner <> {app_text}::regrole) THEN
             ALTER SCHEMA public OWNER TO {app};
           END IF;
         END $isles$;
         GRANT CONNECT ON DATABASE {name} TO {read}, {stream}",
        app_text = literal(&app),
        read = ident(&config.read_user),
        stream = ident(&config.replication_user)
    );
    own.batch("giving the schema public to the app's role", &statement).await
}

/// Ends sessions that an interrupted order of this agent, or an agent before it, has left at work.
async fn end_predecessors(cluster: &Client) -> Result<(), DatabaseError> {
    cluster
        .execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE application_name = $1 AND pid <> pg_backend_pid()",
            &[&Purpose::Reconcile.application_name()],
        )
        .await
        .doing("ending interrupted work")?;
    Ok(())
}
