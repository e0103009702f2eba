//! What a shop owes its customers while databases come and go.

use axum::http::StatusCode;

use crate::{
    cluster::{Cluster, eventually, free_port, url},
    relay::{Cut, Relay},
    selling::order_of,
    visitor::{Visitor, open_shop},
};

#[tokio::test]
async fn a_copy_without_tables_is_passed_over_until_it_has_them() {
    let cluster = Cluster::start().await;
    let admin = cluster.connect("postgres").await.unwrap();
    admin.batch_execute("CREATE DATABASE copy").await.unwrap();
    let visitor = open_shop("us-east-1", cluster.url("shop"), cluster.url("copy")).await;
    visitor.healthy().await;
    let reply = visitor.get("/api/products").await;
    assert_eq!(reply.header("shop-data-source"), "writer");
    assert_eq!(reply.json()["products"].as_array().unwrap().len(), 24);

    // The copy is half filled: tables without a stamp, then complete.
    let copy = cluster.connect("copy").await.unwrap();
    copy.batch_execute(include_str!("../../migrations/0001_tables.sql")).await.unwrap();
    copy.batch_execute("DELETE FROM freshness").await.unwrap();
    assert_eq!(visitor.get("/api/products").await.header("shop-data-source"), "writer");
    copy.batch_execute(include_str!("../../migrations/0002_sample_products.sql")).await.unwrap();
    copy.batch_execute("INSERT INTO freshness VALUES (true, now() - interval '3 s')").await.unwrap();
    let reply = visitor.get("/api/products").await;
    assert_eq!(reply.header("shop-data-source"), "near");
    assert!(reply.header("shop-data-age-ms").parse::<u64>().unwrap() >= 3000);
    assert!(visitor.get("/").await.text.contains("us-east-1"));
}

#[tokio::test]
async fn the_catalogue_outlives_the_writer() {
    let mut writer = Cluster::start().await;
    let copy = Cluster::start().await;
    let at_copy = open_shop("eu-west-1", copy.url("shop"), copy.url("shop")).await;
    at_copy.healthy().await;
    let visitor = open_shop("us-east-1", writer.url("shop"), copy.url("shop")).await;
    visitor.healthy().await;
    writer.crash();
    eventually("orders cannot be taken", async || {
        visitor.get("/readyz").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    assert_eq!(visitor.get("/healthz").await.status, StatusCode::OK);
    assert_eq!(visitor.get("/api/products").await.header("shop-data-source"), "near");

    // An instance that starts now finds the schema in the copy.
    let late = open_shop("us-east-1", writer.url("shop"), copy.url("shop")).await;
    late.healthy().await;
    assert_eq!(late.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_restart_of_the_database_costs_no_order() {
    let mut cluster = Cluster::start().await;
    let visitor = open_shop("eu-west-1", cluster.url("shop"), cluster.url("shop")).await;
    visitor.healthy().await;
    assert_eq!(visitor.order(None, &order_of(1, 1)).await.status, StatusCode::CREATED);
    cluster.crash();
    let waiting = visitor.clone();
    let during = tokio::spawn(async move { waiting.order(None, &order_of(1, 1)).await });
    cluster.run().await;
    assert_eq!(during.await.unwrap().status, StatusCode::CREATED);
    assert_eq!(visitor.get("/").await.status, StatusCode::OK);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 2);
}

#[tokio::test]
async fn without_any_database_it_says_so_and_does_not_fall() {
    let nowhere = url(free_port(), "shop");
    let visitor = open_shop("eu-west-1", nowhere.clone(), nowhere).await;
    assert_eq!(visitor.get("/healthz").await.status, StatusCode::SERVICE_UNAVAILABLE);
    let page = visitor.get("/").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(page.header("retry-after"), "1");
    assert!(page.text.contains("One moment, please"), "{}", page.text);
    assert_eq!(visitor.get("/api/products").await.status, StatusCode::SERVICE_UNAVAILABLE);
}

/// A shop whose way to the writer can be cut at a word.
async fn shop_behind_relay() -> (Cluster, Relay, Visitor) {
    let cluster = Cluster::start().await;
    let relay = Relay::to(cluster.port()).await;
    // Only orders go through the relay: the tables are there before, and reads take the straight way.
    let at_once = open_shop("eu-west-1", cluster.url("shop"), cluster.url("shop")).await;
    at_once.healthy().await;
    let visitor = open_shop("eu-west-1", url(relay.port(), "shop"), cluster.url("shop")).await;
    eventually("its schema is ready", async || visitor.get("/readyz").await.status == StatusCode::OK).await;
    (cluster, relay, visitor)
}

#[tokio::test]
async fn an_order_cut_off_before_its_commit_is_placed_again_and_once() {
    let (cluster, relay, visitor) = shop_behind_relay().await;
    relay.cut_once(Cut::BeforeSending("INSERT INTO order_items"));
    let reply = visitor.order(None, &order_of(5, 2)).await;
    assert!(relay.has_cut());
    assert_eq!(reply.status, StatusCode::CREATED, "{}", reply.text);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(cluster.count("SELECT quantity::bigint FROM stock WHERE product_id = 5").await, 30);
}

#[tokio::test]
async fn an_order_whose_commit_went_unanswered_is_placed_once_under_its_key() {
    let (cluster, relay, visitor) = shop_behind_relay().await;
    relay.cut_once(Cut::BeforeAnswering("COMMIT"));
    let reply = visitor.order(Some("k-2"), &order_of(5, 2)).await;
    assert!(relay.has_cut());
    assert_eq!(reply.status, StatusCode::OK, "the repeat found the first: {}", reply.text);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(cluster.count("SELECT quantity::bigint FROM stock WHERE product_id = 5").await, 30);
}

#[tokio::test]
async fn an_order_whose_commit_went_unanswered_is_not_repeated_without_a_key() {
    let (cluster, relay, visitor) = shop_behind_relay().await;
    relay.cut_once(Cut::BeforeAnswering("COMMIT"));
    let reply = visitor.order(None, &order_of(5, 2)).await;
    assert!(relay.has_cut());
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE, "{}", reply.text);
    assert!(reply.text.contains("may or may not"), "{}", reply.text);
    assert_eq!(cluster.count("SELECT count(*) FROM orders").await, 1);
}
