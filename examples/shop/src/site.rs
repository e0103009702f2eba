//! The pages and the forms on them.

use std::sync::Arc;

use axum::{
    Form, Router,
    extract::{Path, State, rejection::FormRejection},
    http::{HeaderMap, header},
    response::{AppendHeaders, Html, IntoResponse, Redirect, Response},
    routing::{get, post},
};
use serde::Deserialize;

use crate::{
    Failure, Shop,
    cart::{AddToCart, Cart, ReadCart, SetQuantity},
    catalogue::{CountPieces, FindProduct, ListProducts},
    database::Dated,
    input::{self, Customer, Uuid},
    orders::{Basket, FindOrder, PlaceOrder},
    pages::{self, Data, Frame},
};

/// Everything a browser sees.
pub fn routes() -> Router<Arc<Shop>> {
    Router::new()
        .route("/", get(catalogue))
        .route("/products/{id}", get(product))
        .route("/cart", get(cart).post(add))
        .route("/cart/quantity", post(set_quantity))
        .route("/orders", post(checkout))
        .route("/orders/{id}", get(order))
        .fallback(nothing_here)
}

/// A failure, told on a page.
struct Told(Failure, Arc<Shop>);

impl IntoResponse for Told {
    fn into_response(self) -> Response {
        let frame = frame(&self.1, Data::None, 0);
        self.0.respond(Html(pages::failure(&frame, &self.0)))
    }
}

type Page = Result<Response, Told>;

async fn catalogue(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Page {
    let cart = input::cart_id(&headers);
    let asked = (ListProducts, cart.as_ref().map(CountPieces));
    let read = shop.database.read(&asked).await.map_err(|failure| Told(failure, shop.clone()))?;
    let (products, pieces) = &read.answer;
    let frame = frame(&shop, dated(&read), pieces.unwrap_or(0));
    Ok(Html(pages::catalogue(&frame, products)).into_response())
}

async fn product(State(shop): State<Arc<Shop>>, Path(id): Path<String>, headers: HeaderMap) -> Page {
    let told = |failure| Told(failure, shop.clone());
    let cart = input::cart_id(&headers);
    let id = id.parse().map_err(|_| told(Failure::NotFound("product")))?;
    let asked = (FindProduct(id), cart.as_ref().map(CountPieces));
    let read = shop.database.read(&asked).await.map_err(told)?;
    let (product, pieces) = &read.answer;
    let frame = frame(&shop, dated(&read), pieces.unwrap_or(0));
    Ok(Html(pages::product(&frame, product)).into_response())
}

async fn cart(State(shop): State<Arc<Shop>>, headers: HeaderMap) -> Page {
    let cart = match input::cart_id(&headers) {
        Some(id) => shop.database.read_latest(&ReadCart(&id)).await,
        None => Ok(Cart::default()),
    };
    let cart = cart.map_err(|failure| Told(failure, shop.clone()))?;
    let frame = frame(&shop, Data::Latest, cart.pieces());
    Ok(Html(pages::cart(&frame, &cart)).into_response())
}

#[derive(Deserialize)]
struct LineForm {
    product_id: i64,
    quantity: i32,
}

async fn add(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    form: Result<Form<LineForm>, FormRejection>,
) -> Page {
    let told = |failure| Told(failure, shop.clone());
    let LineForm { product_id, quantity } = filled(form).map_err(told)?;
    let quantity = input::quantity(quantity).map_err(told)?;
    let cart = input::cart_id(&headers);
    let add = AddToCart { cart: cart.as_ref(), product_id, quantity };
    let cart = shop.database.change(&add).await.map_err(told)?;
    let cookie = AppendHeaders([(header::SET_COOKIE, input::cart_cookie(&cart))]);
    Ok((cookie, Redirect::to("/cart")).into_response())
}

async fn set_quantity(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    form: Result<Form<LineForm>, FormRejection>,
) -> Page {
    let told = |failure| Told(failure, shop.clone());
    let LineForm { product_id, quantity } = filled(form).map_err(told)?;
    let cart = input::cart_id(&headers).ok_or_else(|| told(Failure::NotFound("cart")))?;
    shop.database.change(&SetQuantity { cart: &cart, product_id, quantity }).await.map_err(told)?;
    Ok(Redirect::to("/cart").into_response())
}

#[derive(Deserialize)]
struct CheckoutForm {
    name: String,
    email: String,
    /// The cart's key: the same form sent twice buys once.
    key: String,
}

async fn checkout(
    State(shop): State<Arc<Shop>>,
    headers: HeaderMap,
    form: Result<Form<CheckoutForm>, FormRejection>,
) -> Page {
    let told = |failure| Told(failure, shop.clone());
    let CheckoutForm { name, email, key } = filled(form).map_err(told)?;
    let customer = Customer { name, email }.check().map_err(told)?;
    let cart = input::cart_id(&headers).ok_or_else(|| told(Failure::NotFound("cart")))?;
    let key = Uuid::parse(&key).ok_or_else(|| told(Failure::Invalid("the form is not this shop's")))?;
    let place = PlaceOrder {
        customer: &customer,
        basket: Basket::Cart(&cart),
        key: Some(key.as_str().to_owned()),
        region: &shop.region,
    };
    let placed = shop.database.change(&place).await.map_err(told)?;
    Ok(Redirect::to(&format!("/orders/{}", placed.id.as_str())).into_response())
}

async fn order(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Page {
    let told = |failure| Told(failure, shop.clone());
    let id = Uuid::parse(&id).ok_or_else(|| told(Failure::NotFound("order")))?;
    let order = shop.database.read_latest(&FindOrder(&id)).await.map_err(told)?;
    Ok(Html(pages::order(&frame(&shop, Data::Latest, 0), &order)).into_response())
}

async fn nothing_here(State(shop): State<Arc<Shop>>) -> Told {
    Told(Failure::NotFound("page"), shop)
}

fn filled<T>(form: Result<Form<T>, FormRejection>) -> Result<T, Failure> {
    let Form(value) = form.map_err(|_| Failure::Invalid("the form is not filled in as expected"))?;
    Ok(value)
}

fn frame(shop: &Shop, data: Data, pieces: i64) -> Frame {
    Frame { region: shop.region.clone(), instance: std::process::id(), data, pieces }
}

fn dated<T>(read: &Dated<T>) -> Data {
    Data::Dated(read.source, read.age)
}
