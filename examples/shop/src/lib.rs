//! A small web shop: catalogue, cart, orders, as HTML pages and as a JSON API.
//!
//! Keeps nothing between two requests: whatever a user did is in PostgreSQL, so any instance in any region may
//! answer next. Knows nothing of Isles but four environment variables ([`config`]).

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit};

pub mod api;
pub mod cart;
pub mod catalogue;
pub mod config;
pub mod database;
pub mod failure;
pub mod input;
pub mod money;
pub mod orders;
pub mod pages;
pub mod pool;
pub mod pulse;
pub mod schema;
pub mod site;

pub use config::Config;
pub use failure::Failure;

/// Bytes of a request body: the largest order the API takes is far smaller.
const REQUEST_BODY_BYTES_MAX: usize = 32 * 1024;

/// What every handler may use.
pub struct Shop {
    /// The region this instance runs in, as shown to users and stored with orders.
    pub region: String,
    /// Both ways to PostgreSQL.
    pub database: database::Database,
    /// Whether this instance can serve.
    pub health: pulse::Health,
}

impl Shop {
    /// Connects lazily: neither database need be there yet.
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            region: config.region.clone(),
            database: database::Database::new(&config.database_url, &config.database_read_url),
            health: pulse::Health::default(),
        })
    }
}

/// Every route of the shop.
pub fn router(shop: Arc<Shop>) -> Router {
    Router::new()
        .merge(site::routes())
        .merge(api::routes())
        .merge(pulse::routes())
        .layer(DefaultBodyLimit::max(REQUEST_BODY_BYTES_MAX))
        .with_state(shop)
}
