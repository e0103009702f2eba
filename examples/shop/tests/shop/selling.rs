//! What a shop owes its customers while all is well.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    visitor::{Visitor, open_shop},
};

async fn shop() -> (Cluster, Visitor) {
    let cluster = Cluster::start().await;
    let visitor = open_shop("eu-west-1", cluster.url("shop"), cluster.url("shop")).await;
    visitor.healthy().await;
    (cluster, visitor)
}

pub(crate) fn order_of(product_id: i64, quantity: i32) -> Value {
    json!({
        "customer": { "name": "Ada", "email": "ada@example.org" },
        "items": [{ "product_id": product_id, "quantity": quantity }],
    })
}

#[tokio::test]
async fn instances_that_start_at_once_create_the_tables_once() {
    let cluster = Cluster::start().await;
    let mut shops = Vec::new();
    for region in ["eu-west-1", "us-east-1", "ap-southeast-1"] {
        shops.push(open_shop(region, cluster.url("shop"), cluster.url("shop")).await);
    }
    for visitor in &shops {
        visitor.healthy().await;
        assert_eq!(visitor.get("/readyz").await.status, StatusCode::OK);
    }
    assert_eq!(cluster.count("SELECT count(*) FROM schema_migrations").await, 2);
    assert_eq!(cluster.count("SELECT count(*) FROM products").await, 24);
}

#[tokio::test]
async fn a_cart_is_the_same_at_every_instance_and_becomes_an_order() {
    let (cluster, visitor) = shop().await;
    let other = open_shop("us-east-1", cluster.url("shop"), cluster.url("shop")).await;
    other.healthy().await;
    assert_eq!(visitor.form("/cart", "product_id=3&quantity=2").await.status, StatusCode::SEE_OTHER);
    let there = visitor.at(&other);
    let add = json!({ "product_id": 7, "quantity": 1 });
    there.json(Method::POST, "/api/cart/items", &add).await;
    there.json(Method::PUT, "/api/cart/items/3", &json!({ "quantity": 3 })).await;
    let cart = visitor.get("/api/cart").await.json();
    assert_eq!(cart["total_cents"], 3 * 4650 + 12900, "{cart}");

    let page = visitor.get("/cart").await.text;
    let key = page.split("name=key value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("key={key}&name=Ada%20%3Cb%3E&email=ada%40example.org");
    let first = visitor.form("/orders", &form).await;
    let again = there.form("/orders", &form).await;
    assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.text);
    assert_eq!(first.header("location"), again.header("location"), "a form sent twice buys once");
    let page = there.get(first.header("location")).await.text;
    assert!(page.contains("Ada &lt;b&gt;") && page.contains("268.50"), "{page}");
    assert_eq!(visitor.get("/api/cart").await.json()["total_cents"], 0);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 1);
}

#[tokio::test]
async fn an_order_keeps_the_prices_of_its_moment() {
    let (cluster, visitor) = shop().await;
    let placed = visitor.order(None, &order_of(1, 3)).await;
    assert_eq!(placed.status, StatusCode::CREATED, "{}", placed.text);
    let dearer = "UPDATE products SET price_cents = 9900 WHERE id = 1";
    cluster.connect("shop").await.unwrap().batch_execute(dearer).await.unwrap();
    let order = visitor.get(placed.header("location")).await.json();
    assert_eq!(order["total_cents"], 3 * 1450);
    assert_eq!(order["items"][0]["unit_price_cents"], 1450);
    assert_eq!(visitor.get("/api/products/1").await.json()["in_stock"], 137);
}

#[tokio::test]
async fn stock_is_never_sold_twice() {
    let (cluster, visitor) = shop().await;
    let buyers: Vec<_> = (0..30)
        .map(|_| {
            let visitor = visitor.clone();
            tokio::spawn(async move { visitor.order(None, &order_of(19, 1)).await })
        })
        .collect();
    let (mut placed, mut refused) = (0, 0);
    for buyer in buyers {
        let reply = buyer.await.unwrap();
        match reply.status {
            StatusCode::CREATED => placed += 1,
            StatusCode::CONFLICT => refused += 1,
            other => panic!("{other}: {}", reply.text),
        }
    }
    assert_eq!((placed, refused), (18, 12), "18 field glasses are in stock");
    assert_eq!(cluster.count("SELECT quantity::bigint FROM stock WHERE product_id = 19").await, 0);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 18);
}

#[tokio::test]
async fn a_repeat_under_the_same_key_returns_the_first_order() {
    let (cluster, visitor) = shop().await;
    let buyers: Vec<_> = (0..8)
        .map(|_| {
            let visitor = visitor.clone();
            tokio::spawn(async move { visitor.order(Some("k-1"), &order_of(2, 1)).await })
        })
        .collect();
    let mut replies = Vec::new();
    for buyer in buyers {
        replies.push(buyer.await.unwrap());
    }
    let created = replies.iter().filter(|reply| reply.status == StatusCode::CREATED).count();
    assert_eq!(created, 1);
    assert!(replies.iter().all(|reply| reply.json()["id"] == replies[0].json()["id"]));
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 1);
    let other = visitor.order(Some("k-1"), &order_of(2, 5)).await;
    assert_eq!(other.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", other.text);
}

#[tokio::test]
async fn nonsense_is_refused_and_changes_nothing() {
    let (cluster, visitor) = shop().await;
    for body in [
        json!({}),
        order_of(1, 0),
        order_of(1, -4),
        order_of(1, 100),
        json!({ "customer": { "name": "", "email": "a@b" }, "items": [] }),
        json!({ "customer": { "name": "A", "email": "a@b" }, "items": [] }),
        json!({ "customer": { "name": "A", "email": "a@b" } }),
    ] {
        let reply = visitor.order(None, &body).await;
        assert_eq!(reply.status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {}", reply.text);
    }
    assert_eq!(visitor.order(None, &order_of(999, 1)).await.status, StatusCode::NOT_FOUND);
    for path in ["/products/x", "/products/99", "/orders/1", "/api/orders/1", "/api/products/-1", "/nothing"]
    {
        assert_eq!(visitor.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(visitor.form("/cart", "product_id=1'--&quantity=1").await.status.as_u16(), 422);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 0);
}
