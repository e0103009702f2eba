//! What a visitor means to buy. Lives in PostgreSQL under a random id that the visitor's cookie holds.

use serde::Serialize;
use tokio_postgres::{Client, Transaction};

use crate::{
    Failure,
    database::{Change, Query},
    input::{QUANTITY_MAX, Uuid},
    money::Cents,
};

/// Different products in one cart or order.
pub const LINES_MAX: i64 = 50;

/// One product in a cart.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    /// The product.
    pub product_id: i64,
    /// Its name.
    pub name: String,
    /// Pieces.
    pub quantity: i32,
    /// Today's price of one piece; the order takes the price of its own moment.
    pub unit_price_cents: Cents,
    /// The colour of its picture, in degrees.
    #[serde(skip)]
    pub hue: i32,
}

/// A cart. One that nobody has put anything into need not exist in the database.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Cart {
    /// In order of product.
    pub lines: Vec<Line>,
    /// The key under which a form sent from this cart buys once.
    pub checkout_key: Option<String>,
}

impl Cart {
    /// The sum at today's prices.
    pub fn total(&self) -> Option<Cents> {
        Cents::sum(self.lines.iter().map(|line| line.unit_price_cents.times(line.quantity)))
    }

    /// Pieces in all.
    pub fn pieces(&self) -> i64 {
        self.lines.iter().map(|line| i64::from(line.quantity)).sum()
    }
}

/// What a cart holds.
pub struct ReadCart<'r>(pub &'r Uuid);

impl Query for ReadCart<'_> {
    type Answer = Cart;

    async fn ask(&self, client: &Client) -> Result<Cart, Failure> {
        let key = "SELECT checkout_key::text FROM carts WHERE id = $1::text::uuid";
        let Some(key) = client.query_opt(key, &[&self.0.as_str()]).await? else { return Ok(Cart::default()) };
        let lines = "SELECT i.product_id, p.name, i.quantity, p.price_cents, p.hue
                     FROM cart_items i JOIN products p ON p.id = i.product_id
                     WHERE i.cart_id = $1::text::uuid ORDER BY i.product_id";
        let rows = client.query(lines, &[&self.0.as_str()]).await?;
        let line = |row: &tokio_postgres::Row| Line {
            product_id: row.get(0),
            name: row.get(1),
            quantity: row.get(2),
            unit_price_cents: Cents(row.get(3)),
            hue: row.get(4),
        };
        Ok(Cart { lines: rows.iter().map(line).collect(), checkout_key: key.get(0) })
    }
}

/// Puts more of a product into a cart, up to [`QUANTITY_MAX`]; makes the cart if need be.
pub struct AddToCart<'r> {
    /// The visitor's cart, if the cookie names one.
    pub cart: Option<&'r Uuid>,
    /// What to add.
    pub product_id: i64,
    /// How many, checked by [`crate::input::quantity`].
    pub quantity: i32,
}

impl Change for AddToCart<'_> {
    /// The cart's id: a new one where the cookie named none that exists.
    type Outcome = Uuid;

    async fn make(&self, tx: &Transaction<'_>) -> Result<Uuid, Failure> {
        let cart = match self.cart {
            Some(cart) if touch(tx, cart).await? => cart.clone(),
            Some(_) | None => {
                let row = tx.query_one("INSERT INTO carts DEFAULT VALUES RETURNING id::text", &[]).await?;
                Uuid::parse(row.get(0)).expect("PostgreSQL spells a uuid as RFC 9562 does")
            }
        };
        let known = "SELECT 1 FROM products WHERE id = $1";
        tx.query_opt(known, &[&self.product_id]).await?.ok_or(Failure::NotFound("product"))?;
        let add = "INSERT INTO cart_items (cart_id, product_id, quantity) VALUES ($1::text::uuid, $2, $3)
                   ON CONFLICT (cart_id, product_id)
                   DO UPDATE SET quantity = least(cart_items.quantity + EXCLUDED.quantity, $4)";
        tx.execute(add, &[&cart.as_str(), &self.product_id, &self.quantity, &QUANTITY_MAX]).await?;
        let lines = "SELECT count(*) FROM cart_items WHERE cart_id = $1::text::uuid";
        if tx.query_one(lines, &[&cart.as_str()]).await?.get::<_, i64>(0) > LINES_MAX {
            return Err(Failure::Invalid("a cart holds at most 50 different products"));
        }
        Ok(cart)
    }

    fn repeatable(&self) -> bool {
        false
    }
}

/// Sets how many pieces of a product a cart holds; 0 takes it out.
pub struct SetQuantity<'r> {
    /// The cart.
    pub cart: &'r Uuid,
    /// What to change.
    pub product_id: i64,
    /// 0..=[`QUANTITY_MAX`].
    pub quantity: i32,
}

impl Change for SetQuantity<'_> {
    type Outcome = ();

    async fn make(&self, tx: &Transaction<'_>) -> Result<(), Failure> {
        if !(0..=QUANTITY_MAX).contains(&self.quantity) {
            return Err(Failure::Invalid("a quantity must be between 0 and 99"));
        }
        if !touch(tx, self.cart).await? {
            return Err(Failure::NotFound("cart"));
        }
        if self.quantity == 0 {
            let remove = "DELETE FROM cart_items WHERE cart_id = $1::text::uuid AND product_id = $2";
            tx.execute(remove, &[&self.cart.as_str(), &self.product_id]).await?;
            return Ok(());
        }
        let set = "UPDATE cart_items SET quantity = $3 WHERE cart_id = $1::text::uuid AND product_id = $2";
        match tx.execute(set, &[&self.cart.as_str(), &self.product_id, &self.quantity]).await? {
            0 => Err(Failure::NotFound("product in this cart")),
            _ => Ok(()),
        }
    }

    fn repeatable(&self) -> bool {
        true
    }
}

/// Locks the cart's row, so that an order and a change of the same cart take turns. False: there is no such cart.
async fn touch(tx: &Transaction<'_>, cart: &Uuid) -> Result<bool, Failure> {
    let touch = "UPDATE carts SET touched_at = now() WHERE id = $1::text::uuid";
    Ok(tx.execute(touch, &[&cart.as_str()]).await? == 1)
}
