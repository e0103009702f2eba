//! Places orders: stock, prices and the idempotency key in one transaction, so that nothing is sold twice and no
//! order is placed twice.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Transaction};

use crate::{
    Failure,
    cart::LINES_MAX,
    database::{Change, Query},
    input::{self, Customer, Uuid},
    money::Cents,
};

/// So many pieces of one product.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The product.
    pub product_id: i64,
    /// Pieces.
    pub quantity: i32,
}

/// What is bought.
pub enum Basket<'r> {
    /// Named by the request.
    Items(Vec<Item>),
    /// Whatever the visitor's cart holds; it is emptied.
    Cart(&'r Uuid),
}

/// An order as it was placed.
#[derive(Debug, Clone, Serialize)]
pub struct Order {
    /// Its public name.
    pub id: String,
    /// Its number, for people; counted up by a sequence.
    pub number: i64,
    /// The region whose instance took it.
    pub region: String,
    /// As on the parcel.
    pub recipient: String,
    /// RFC 3339, UTC.
    pub placed_at: String,
    /// What it cost, at the prices of its moment.
    pub total_cents: Cents,
    /// In order of product.
    pub items: Vec<OrderItem>,
}

/// One product of an order.
#[derive(Debug, Clone, Serialize)]
pub struct OrderItem {
    /// The product.
    pub product_id: i64,
    /// Its name today.
    pub name: String,
    /// Pieces.
    pub quantity: i32,
    /// What one piece cost.
    pub unit_price_cents: Cents,
    /// The colour of its picture, in degrees.
    #[serde(skip)]
    pub hue: i32,
}

/// Places an order.
pub struct PlaceOrder<'r> {
    /// Who orders, checked by [`Customer::check`].
    pub customer: &'r Customer,
    /// What is bought.
    pub basket: Basket<'r>,
    /// The key under which a repeat returns the first order.
    pub key: Option<String>,
    /// The region whose instance takes it.
    pub region: &'r str,
}

/// An order's public name, and whether this request placed it.
pub struct Placed {
    /// The order's id.
    pub id: Uuid,
    /// False: an earlier request with the same key did.
    pub now: bool,
}

impl Change for PlaceOrder<'_> {
    type Outcome = Placed;

    async fn make(&self, tx: &Transaction<'_>) -> Result<Placed, Failure> {
        let fingerprint = self.fingerprint(tx).await?;
        if let Some(key) = &self.key
            && let Some(id) = recorded(tx, key, &fingerprint).await?
        {
            return Ok(Placed { id, now: false });
        }
        let lines = self.lines(tx).await?;
        let bought = take_from_stock(tx, &lines).await?;
        let (number, id) = self.write(tx, &bought).await?;
        if let Basket::Cart(cart) = self.basket {
            empty(tx, cart).await?;
        }
        if let Some(key) = &self.key {
            let record = "INSERT INTO idempotency_keys (key, fingerprint, order_number) VALUES ($1, $2, $3)";
            tx.execute(record, &[key, &fingerprint, &number]).await?;
        }
        Ok(Placed { id, now: true })
    }

    fn repeatable(&self) -> bool {
        self.key.is_some()
    }
}

/// A product as it goes into an order.
struct Bought {
    product_id: i64,
    quantity: i32,
    price: Cents,
}

impl PlaceOrder<'_> {
    /// Tells one order from another sent under the same key. A cart counts by its id: the first order empties it.
    async fn fingerprint(&self, tx: &Transaction<'_>) -> Result<String, Failure> {
        let basket = match &self.basket {
            Basket::Items(items) => format!("{items:?}"),
            Basket::Cart(cart) => cart.as_str().to_owned(),
        };
        let request = format!("{basket}\n{}\n{}", self.customer.email, self.customer.name);
        let hash = "SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')";
        Ok(tx.query_one(hash, &[&request]).await?.get(0))
    }

    /// What is bought, one entry a product.
    async fn lines(&self, tx: &Transaction<'_>) -> Result<BTreeMap<i64, i32>, Failure> {
        let mut lines = BTreeMap::new();
        match &self.basket {
            Basket::Items(items) => {
                for item in items {
                    let pieces = lines.entry(item.product_id).or_insert(0_i32);
                    *pieces = pieces.saturating_add(input::quantity(item.quantity)?);
                    input::quantity(*pieces)?;
                }
            }
            Basket::Cart(cart) => {
                let lock = "SELECT 1 FROM carts WHERE id = $1::text::uuid FOR UPDATE";
                tx.query_opt(lock, &[&cart.as_str()]).await?.ok_or(Failure::NotFound("cart"))?;
                let held = "SELECT product_id, quantity FROM cart_items WHERE cart_id = $1::text::uuid";
                for row in tx.query(held, &[&cart.as_str()]).await? {
                    lines.insert(row.get(0), row.get(1));
                }
            }
        }
        match i64::try_from(lines.len()) {
            Ok(1..=LINES_MAX) => Ok(lines),
            Ok(0) => Err(Failure::Invalid("there is nothing to order")),
            Ok(_) | Err(_) => Err(Failure::Invalid("an order holds at most 50 different products")),
        }
    }

    /// Writes the order and its items.
    async fn write(&self, tx: &Transaction<'_>, bought: &[Bought]) -> Result<(i64, Uuid), Failure> {
        let total = Cents::sum(bought.iter().map(|item| item.price.times(item.quantity)))
            .ok_or(Failure::Invalid("the total is out of range"))?;
        // Because DO NOTHING returns no row for a known customer, the row is updated to what it is.
        let customer = "INSERT INTO customers (email) VALUES ($1)
                        ON CONFLICT (email) DO UPDATE SET email = EXCLUDED.email RETURNING id";
        let customer: i64 = tx.query_one(customer, &[&self.customer.email]).await?.get(0);
        let order = "INSERT INTO orders (customer_id, recipient, region, total_cents)
                     VALUES ($1, $2, $3, $4) RETURNING number, id::text";
        let order = tx.query_one(order, &[&customer, &self.customer.name, &self.region, &total.0]).await?;
        let number: i64 = order.get(0);
        let products: Vec<i64> = bought.iter().map(|item| item.product_id).collect();
        let quantities: Vec<i32> = bought.iter().map(|item| item.quantity).collect();
        let prices: Vec<i64> = bought.iter().map(|item| item.price.0).collect();
        let items = "INSERT INTO order_items (order_number, product_id, quantity, unit_price_cents)
                     SELECT $1, * FROM unnest($2::bigint[], $3::integer[], $4::bigint[])";
        tx.execute(items, &[&number, &products, &quantities, &prices]).await?;
        Ok((number, Uuid::parse(order.get(1)).expect("PostgreSQL spells a uuid as RFC 9562 does")))
    }
}

/// The order placed under a key, if there is one. Requests with the same key take turns until their transactions end.
async fn recorded(tx: &Transaction<'_>, key: &str, fingerprint: &str) -> Result<Option<Uuid>, Failure> {
    tx.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", &[&key]).await?;
    let find = "SELECT k.fingerprint, o.id::text FROM idempotency_keys k JOIN orders o
                ON o.number = k.order_number WHERE k.key = $1";
    let Some(row) = tx.query_opt(find, &[&key]).await? else { return Ok(None) };
    if row.get::<_, &str>(0) == fingerprint { Ok(Uuid::parse(row.get(1))) } else { Err(Failure::KeyReused) }
}

/// Locks the stock of every product, in the same order for everyone, and takes the pieces out.
async fn take_from_stock(tx: &Transaction<'_>, lines: &BTreeMap<i64, i32>) -> Result<Vec<Bought>, Failure> {
    let ids: Vec<i64> = lines.keys().copied().collect();
    let lock = "SELECT s.product_id, s.quantity, p.price_cents, p.name
                FROM stock s JOIN products p ON p.id = s.product_id
                WHERE s.product_id = ANY($1) ORDER BY s.product_id FOR UPDATE OF s";
    let rows = tx.query(lock, &[&ids]).await?;
    if rows.len() != lines.len() {
        return Err(Failure::NotFound("product"));
    }
    let mut bought = Vec::with_capacity(rows.len());
    for (row, (&product_id, &quantity)) in rows.iter().zip(lines) {
        let left: i32 = row.get(1);
        if left < quantity {
            return Err(Failure::SoldOut { product_id, name: row.get(3), left });
        }
        bought.push(Bought { product_id, quantity, price: Cents(row.get(2)) });
    }
    let quantities: Vec<i32> = bought.iter().map(|item| item.quantity).collect();
    let take = "UPDATE stock SET quantity = stock.quantity - taken.quantity
                FROM unnest($1::bigint[], $2::integer[]) AS taken (product_id, quantity)
                WHERE stock.product_id = taken.product_id";
    tx.execute(take, &[&ids, &quantities]).await?;
    Ok(bought)
}

/// Empties a cart and gives its next order a key of its own.
async fn empty(tx: &Transaction<'_>, cart: &Uuid) -> Result<(), Failure> {
    tx.execute("DELETE FROM cart_items WHERE cart_id = $1::text::uuid", &[&cart.as_str()]).await?;
    let renew =
        "UPDATE carts SET checkout_key = gen_random_uuid(), touched_at = now() WHERE id = $1::text::uuid";
    tx.execute(renew, &[&cart.as_str()]).await?;
    Ok(())
}

/// One order by its public name.
pub struct FindOrder<'r>(pub &'r Uuid);

impl Query for FindOrder<'_> {
    type Answer = Order;

    async fn ask(&self, client: &Client) -> Result<Order, Failure> {
        let find = "SELECT number, region, recipient, total_cents,
                           to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
                    FROM orders WHERE id = $1::text::uuid";
        let row = client.query_opt(find, &[&self.0.as_str()]).await?.ok_or(Failure::NotFound("order"))?;
        let number: i64 = row.get(0);
        let items = "SELECT i.product_id, p.name, i.quantity, i.unit_price_cents, p.hue
                     FROM order_items i JOIN products p ON p.id = i.product_id
                     WHERE i.order_number = $1 ORDER BY i.product_id";
        let item = |row: &tokio_postgres::Row| OrderItem {
            product_id: row.get(0),
            name: row.get(1),
            quantity: row.get(2),
            unit_price_cents: Cents(row.get(3)),
            hue: row.get(4),
        };
        Ok(Order {
            id: self.0.as_str().to_owned(),
            number,
            region: row.get(1),
            recipient: row.get(2),
            placed_at: row.get(4),
            total_cents: Cents(row.get(3)),
            items: client.query(items, &[&number]).await?.iter().map(item).collect(),
        })
    }
}
