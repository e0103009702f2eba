//! What is for sale, and how much of it is left.

use serde::Serialize;
use tokio_postgres::{Client, Row};

use crate::{Failure, database::Query, input::Uuid, money::Cents};

/// Products shown at most; a larger shop would page.
const PRODUCTS_MAX: i64 = 200;

/// One product.
#[derive(Debug, Clone, Serialize)]
pub struct Product {
    /// Its id.
    pub id: i64,
    /// Its article number.
    pub sku: String,
    /// What it is called.
    pub name: String,
    /// The shelf it stands on.
    pub category: String,
    /// One sentence.
    pub description: String,
    /// What one piece costs.
    pub price_cents: Cents,
    /// Pieces left.
    pub in_stock: i32,
    /// The colour of its picture, in degrees.
    #[serde(skip)]
    pub hue: i32,
}

/// All products, by shelf.
pub struct ListProducts;

impl Query for ListProducts {
    type Answer = Vec<Product>;

    async fn ask(&self, client: &Client) -> Result<Vec<Product>, Failure> {
        let list = "SELECT p.id, p.sku, p.name, p.category, p.description, p.price_cents, p.hue, s.quantity
                    FROM products p JOIN stock s ON s.product_id = p.id
                    ORDER BY p.id LIMIT $1";
        Ok(client.query(list, &[&PRODUCTS_MAX]).await?.iter().map(product).collect())
    }
}

/// One product by its id.
pub struct FindProduct(pub i64);

impl Query for FindProduct {
    type Answer = Product;

    async fn ask(&self, client: &Client) -> Result<Product, Failure> {
        let find = "SELECT p.id, p.sku, p.name, p.category, p.description, p.price_cents, p.hue, s.quantity
                    FROM products p JOIN stock s ON s.product_id = p.id
                    WHERE p.id = $1";
        let row = client.query_opt(find, &[&self.0]).await?;
        row.as_ref().map(product).ok_or(Failure::NotFound("product"))
    }
}

/// How many pieces a cart holds, for the page's head: from the near copy, so it may be a moment old.
pub struct CountPieces<'r>(pub &'r Uuid);

impl Query for CountPieces<'_> {
    type Answer = i64;

    async fn ask(&self, client: &Client) -> Result<i64, Failure> {
        let count = "SELECT coalesce(sum(quantity), 0) FROM cart_items WHERE cart_id = $1::text::uuid";
        Ok(client.query_one(count, &[&self.0.as_str()]).await?.get(0))
    }
}

/// Two questions to the same copy.
impl<A: Query, B: Query> Query for (A, Option<B>) {
    type Answer = (A::Answer, Option<B::Answer>);

    async fn ask(&self, client: &Client) -> Result<Self::Answer, Failure> {
        let first = self.0.ask(client).await?;
        let second = match &self.1 {
            Some(query) => Some(query.ask(client).await?),
            None => None,
        };
        Ok((first, second))
    }
}

fn product(row: &Row) -> Product {
    Product {
        id: row.get(0),
        sku: row.get(1),
        name: row.get(2),
        category: row.get(3),
        description: row.get(4),
        price_cents: Cents(row.get(5)),
        hue: row.get(6),
        in_stock: row.get(7),
    }
}
