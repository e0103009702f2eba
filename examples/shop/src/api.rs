//! The JSON API: products, cart, orders.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State, rejection::JsonRejection},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Response},
    routing::{get, post, put},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Failure, Shop,
    cart::{AddToCart, Cart, ReadCart, SetQuantity},
    catalogue::{FindProduct, ListProducts},
    database::{Dated, Source},
    input::{self, Customer, Uuid},
    orders::{Basket, FindOrder, Item, PlaceOrder},
};

type Body<T> = Result<Json<T>, JsonRejection>;

/// Everything under `/api`.
pub fn routes() -> Router<Arc<Shop>> {
    Router::new()
        .route("/api/products", get(list_products))
        .route("/api/products/{id}", get(find_product))
        .route("/api/cart", get(read_cart))
        .route("/api/cart/items", post(add_to_cart))
        .route("/api/cart/items/{product_id}", put(set_quantity).delete(remove))
        .route("/api/orders", post(place_order))
        .route("/api/orders/{id}", get(find_order))
}

async fn list_products(State(shop): State<Arc<Shop>>) -> Result<Response, Failure> {
    let read = shop.database.read(&ListProducts).await?;
    let products = json!({ "products": read.answer });
    Ok((provenance(&shop, &read), Json(products)).into_response())
}

async fn find_product(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = id.parse().map_err(|_| Failure::NotFound("product"))?;
    let read = shop.database.read(&FindProduct(id)).await?;
    let headers = provenance(&shop, &read);
    Ok((headers, Json(read.answer)).into_response())
}

async fn read_cart(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Result<Json<Value>, Failure> {
    match input::cart_id(&headers) {
        Some(cart) => shown(&shop.database.read_latest(&ReadCart(&cart)).await?),
        None => shown(&Cart::default()),
    }
}

async fn add_to_cart(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    body: Body<Item>,
) -> Result<Response, Failure> {
    let item = parsed(body)?;
    let cart = input::cart_id(&headers);
    let quantity = input::quantity(item.quantity)?;
    let add = AddToCart { cart: cart.as_ref(), product_id: item.product_id, quantity };
    let cart = shop.database.change(&add).await?;
    let body = shown(&shop.database.read_latest(&ReadCart(&cart)).await?)?;
    Ok((AppendHeaders([(header::SET_COOKIE, input::cart_cookie(&cart))]), body).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewQuantity {
    quantity: i32,
}

async fn set_quantity(
    State(shop): State<Arc<Shop>>,
    Path(product_id): Path<String>,
    headers: HeaderMap,
    body: Body<NewQuantity>,
) -> Result<Json<Value>, Failure> {
    let quantity = parsed(body)?.quantity;
    change_line(&shop, &headers, &product_id, quantity).await
}

async fn remove(
    State(shop): State<Arc<Shop>>,
    Path(product_id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, Failure> {
    change_line(&shop, &headers, &product_id, 0).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewOrder {
    customer: Customer,
    /// Without items, the order is for the visitor's cart.
    items: Option<Vec<Item>>,
}

async fn place_order(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    body: Body<NewOrder>,
) -> Result<Response, Failure> {
    let key = input::idempotency_key(&headers)?;
    let NewOrder { customer, items } = parsed(body)?;
    let customer = customer.check()?;
    let cart = input::cart_id(&headers);
    let basket = match (items, &cart) {
        (Some(items), _) => Basket::Items(items),
        (None, Some(cart)) => Basket::Cart(cart),
        (None, None) => return Err(Failure::Invalid("there is nothing to order")),
    };
    let place = PlaceOrder { customer: &customer, basket, key, region: &shop.region };
    let placed = shop.database.change(&place).await?;
    let order = shop.database.read_latest(&FindOrder(&placed.id)).await?;
    let status = if placed.now { StatusCode::CREATED } else { StatusCode::OK };
    let location = format!("/api/orders/{}", placed.id.as_str());
    Ok((status, [(header::LOCATION, location)], Json(order)).into_response())
}

async fn find_order(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Response, Failure> {
    let id = Uuid::parse(&id).ok_or(Failure::NotFound("order"))?;
    Ok(Json(shop.database.read_latest(&FindOrder(&id)).await?).into_response())
}

async fn change_line(
    shop: &Shop,
    headers: &HeaderMap,
    product_id: &str,
    quantity: i32,
) -> Result<Json<Value>, Failure> {
    let cart = input::cart_id(headers).ok_or(Failure::NotFound("cart"))?;
    let product_id = product_id.parse().map_err(|_| Failure::NotFound("product"))?;
    shop.database.change(&SetQuantity { cart: &cart, product_id, quantity }).await?;
    shown(&shop.database.read_latest(&ReadCart(&cart)).await?)
}

fn shown(cart: &Cart) -> Result<Json<Value>, Failure> {
    let total = cart.total().ok_or(Failure::Invalid("the total is out of range"))?;
    Ok(Json(json!({ "lines": cart.lines, "total_cents": total })))
}

fn parsed<T>(body: Body<T>) -> Result<T, Failure> {
    let Json(value) = body.map_err(|_| Failure::Invalid("the body is not the JSON that is expected here"))?;
    Ok(value)
}

/// Says which region answered, from which copy, and how old that may be.
fn provenance<T>(shop: &Shop, read: &Dated<T>) -> [(HeaderName, String); 3] {
    let source = match read.source {
        Source::Near => "near",
        Source::Writer => "writer",
    };
    [
        (HeaderName::from_static("shop-region"), header_text(&shop.region)),
        (HeaderName::from_static("shop-data-source"), source.to_owned()),
        (HeaderName::from_static("shop-data-age-ms"), read.age.as_millis().to_string()),
    ]
}

/// A region's name comes from the environment and might hold anything.
fn header_text(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).collect()
}
