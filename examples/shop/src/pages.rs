//! Draws the pages. Every text from outside goes through [`Escaped`].

use std::{
    fmt::{self, Write as _},
    time::Duration,
};

use crate::{
    Failure, cart::Cart, catalogue::Product, database::Source, input::QUANTITY_MAX, money::Cents,
    orders::Order,
};

const STYLE: &str = include_str!("style.css");

/// What surrounds every page.
pub struct Frame {
    /// The region whose instance draws it.
    pub region: String,
    /// That instance's process id.
    pub instance: u32,
    /// Where the data came from.
    pub data: Data,
    /// Pieces in the visitor's cart.
    pub pieces: i64,
}

/// Where a page's data came from.
#[derive(Debug, Clone, Copy)]
pub enum Data {
    /// The page shows none.
    None,
    /// The writer, asked for its latest.
    Latest,
    /// Whoever was nearest, and how old that may be.
    Dated(Source, Duration),
}

/// Text that shows as it is, in content and in quoted attributes (HTML, section 13.1.2.3).
pub struct Escaped<'t>(pub &'t str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

/// The catalogue, one shelf after another.
pub fn catalogue(frame: &Frame, products: &[Product]) -> String {
    let mut body = String::from("<h1>From the harbour</h1>");
    for shelf in products.chunk_by(|a, b| a.category == b.category) {
        let [first, ..] = shelf else { continue };
        let cards: String = shelf.iter().map(card).collect();
        let category = Escaped(&first.category);
        body += &format!("<h2>{category}</h2><section class=shelf>{cards}</section>");
    }
    page(frame, "Catalogue", &body)
}

/// One product.
pub fn product(frame: &Frame, product: &Product) -> String {
    let body = format!(
        "<article class=product>{picture}<div><p class=sku>{category} · {sku}</p><h1>{name}</h1>\
         <p class=lead>{description}</p><p class=price>{price}</p>{stock}{form}</div></article>",
        picture = picture(product.id, product.hue),
        category = Escaped(&product.category),
        sku = Escaped(&product.sku),
        name = Escaped(&product.name),
        description = Escaped(&product.description),
        price = product.price_cents,
        stock = stock(product.in_stock),
        form = add_form(product),
    );
    page(frame, &product.name, &body)
}

/// The cart and the form that orders it.
pub fn cart(frame: &Frame, cart: &Cart) -> String {
    let (Some(key), Some(total), false) = (&cart.checkout_key, cart.total(), cart.lines.is_empty()) else {
        let body = "<h1>Your cart</h1><p class=empty>Nothing here yet.</p><p><a class=button href=/>To the \
                    catalogue</a></p>";
        return page(frame, "Cart", body);
    };
    let mut rows = String::new();
    for line in &cart.lines {
        let set = |quantity: i32, sign: &str, label: &str| {
            let disabled = if quantity > QUANTITY_MAX { " disabled" } else { "" };
            format!(
                "<form method=post action=/cart/quantity><input type=hidden name=product_id value={id}>\
                 <button class=step name=quantity value={quantity} aria-label=\"{label}\"{disabled}>{sign}</button></form>",
                id = line.product_id,
            )
        };
        rows += &row(
            (line.product_id, line.hue, &line.name),
            &format!(
                "{less}<b>{quantity}</b>{more}",
                less = set(line.quantity - 1, "−", "One piece less"),
                quantity = line.quantity,
                more = set(line.quantity + 1, "+", "One piece more"),
            ),
            line.unit_price_cents,
            line.quantity,
        );
    }
    let body = format!(
        "<h1>Your cart</h1><div class=columns>{table}<form class=checkout method=post action=/orders>\
         <h2>Order</h2><input type=hidden name=key value=\"{key}\">\
         <label>Name<input name=name required maxlength=100 autocomplete=name></label>\
         <label>E-mail<input name=email type=email required maxlength=200 autocomplete=email></label>\
         <button>Order for {total}</button><p class=hint>Sent twice, this form still buys once.</p></form></div>",
        table = table(&rows, total),
        key = Escaped(key),
    );
    page(frame, "Cart", &body)
}

/// An order as it was placed.
pub fn order(frame: &Frame, order: &Order) -> String {
    let mut rows = String::new();
    for item in &order.items {
        rows += &row(
            (item.product_id, item.hue, &item.name),
            &format!("<b>{}</b>", item.quantity),
            item.unit_price_cents,
            item.quantity,
        );
    }
    let body = format!(
        "<p class=done><span aria-hidden=true>✓</span> Thank you, {recipient}.</p><h1>Order {number}</h1>\
         <p class=lead>Placed <time datetime={placed_at}>{when}</time>, taken in <b>{region}</b>.</p>{table}\
         <p class=hint>Order id <code>{id}</code></p><p><a class=button href=/>On with shopping</a></p>",
        recipient = Escaped(&order.recipient),
        number = order.number,
        placed_at = Escaped(&order.placed_at),
        when = Escaped(&order.placed_at.replace('T', " ").replace('Z', " UTC")),
        region = Escaped(&order.region),
        table = table(&rows, order.total_cents),
        id = Escaped(&order.id),
    );
    page(frame, &format!("Order {}", order.number), &body)
}

/// What went wrong, and the way back.
pub fn failure(frame: &Frame, failure: &Failure) -> String {
    let code = failure.status();
    let body = format!(
        "<h1>{title}</h1><p class=lead>{text}.</p><p><a class=button href=/>To the catalogue</a> \
         <a class=\"button quiet\" href=/cart>To the cart</a></p>",
        title = if code.is_server_error() { "One moment, please" } else { "That did not work" },
        text = Escaped(&sentence(&failure.to_string())),
    );
    page(frame, code.canonical_reason().unwrap_or("Error"), &body)
}

fn page(frame: &Frame, title: &str, body: &str) -> String {
    let cart = if frame.pieces > 0 { format!("<b>{}</b>", frame.pieces) } else { String::new() };
    format!(
        "<!doctype html><html lang=en><head><meta charset=utf-8><title>{title} · Harbour & Isle</title>\
         <meta name=viewport content=\"width=device-width, initial-scale=1\"><style>{STYLE}</style></head><body>\
         <header><a class=brand href=/>Harbour <i>&amp;</i> Isle</a><nav><a href=/>Catalogue</a>\
         <a href=/cart>Cart{cart}</a></nav></header><main>{body}</main><footer>{served}</footer></body></html>",
        title = Escaped(title),
        served = served(frame),
    )
}

/// Which region's instance drew the page, from which copy, and how old that may be.
fn served(frame: &Frame) -> String {
    let region = Escaped(&frame.region);
    let data = match frame.data {
        Data::None => String::new(),
        Data::Latest => item("Data from", "the writer, current"),
        Data::Dated(Source::Near, age) => {
            item("Data from", &format!("this region’s copy, at most {} old", span(age)))
        }
        Data::Dated(Source::Writer, age) => {
            item("Data from", &format!("the writer, at most {} old", span(age)))
        }
    };
    format!(
        "<dl><div><dt>Served by</dt><dd><span class=dot></span>{region}</dd></div>\
         <div class=instance><dt>Instance</dt><dd>process {instance}</dd></div>{data}</dl>",
        instance = frame.instance,
    )
}

fn item(name: &str, value: &str) -> String {
    format!("<div><dt>{name}</dt><dd>{value}</dd></div>")
}

fn span(age: Duration) -> String {
    match age.as_secs() {
        0..60 => format!("{:.1} s", age.as_secs_f64()),
        60..3600 => format!("{} min", age.as_secs() / 60),
        _ => format!("{} h", age.as_secs() / 3600),
    }
}

fn card(product: &Product) -> String {
    format!(
        "<article class=card><a href=/products/{id}>{picture}<h3>{name}</h3></a><p>{description}</p>\
         {stock}<div class=buy><span class=price>{price}</span>{form}</div></article>",
        id = product.id,
        picture = picture(product.id, product.hue),
        name = Escaped(&product.name),
        description = Escaped(&product.description),
        stock = stock(product.in_stock),
        price = product.price_cents,
        form = add_form(product),
    )
}

fn stock(left: i32) -> String {
    match left {
        ..=0 => "<p class=\"stock out\">Sold out</p>".to_owned(),
        1..=10 => format!("<p class=\"stock few\">Only {left} left</p>"),
        11.. => format!("<p class=stock>{left} in stock</p>"),
    }
}

fn add_form(product: &Product) -> String {
    let disabled = if product.in_stock > 0 { "" } else { " disabled" };
    format!(
        "<form method=post action=/cart><input type=hidden name=product_id value={id}>\
         <input type=hidden name=quantity value=1><button{disabled}>Add to cart</button></form>",
        id = product.id,
    )
}

fn table(rows: &str, total: Cents) -> String {
    format!(
        "<table><thead><tr><th>Product<th class=pieces>Pieces<th class=each>Each<th class=sum>Sum</tr></thead>\
         <tbody>{rows}</tbody><tfoot><tr><td>Total<td class=pieces><td class=each><td class=sum>{total}</tr></tfoot></table>"
    )
}

fn row((id, hue, name): (i64, i32, &str), pieces: &str, price: Cents, quantity: i32) -> String {
    format!(
        "<tr><td><a class=item href=/products/{id}>{picture}<span>{name}</span></a><td class=pieces>\
         <div>{pieces}</div><td class=each>{price}<td class=sum>{sum}</tr>",
        picture = picture(id, hue),
        name = Escaped(name),
        sum = price.times(quantity).unwrap_or(price),
    )
}

/// An island in the product's colour; its shape follows the id.
fn picture(id: i64, hue: i32) -> String {
    let turn = |step: i64, span: i64| (id * step).rem_euclid(span);
    format!(
        "<svg class=picture viewBox=\"0 0 160 100\" preserveAspectRatio=\"xMidYMid slice\" aria-hidden=true \
         style=\"--hue:{hue}\"><rect class=sky width=160 height=100 /><circle class=sun cx={sun_x} cy={sun_y} r=11 />\
         <path class=far d=\"M-10 70 Q{far_x} {far_y} 175 70 Z\" /><path class=isle d=\"M{left} 70 \
         Q{peak_x} {peak_y} {right} 70 Z\" /><rect class=sea y=69 width=160 height=31 />\
         <path class=wave d=\"M0 80 q10 -5 20 0 t20 0 t20 0 t20 0 t20 0 t20 0 t20 0 t20 0\" />\
         <path class=wave d=\"M-8 90 q10 -5 20 0 t20 0 t20 0 t20 0 t20 0 t20 0 t20 0 t20 0 t20 0\" /></svg>",
        sun_x = 30 + turn(37, 100),
        sun_y = 20 + turn(13, 14),
        far_x = 20 + turn(53, 120),
        far_y = 34 + turn(17, 20),
        left = 12 + turn(29, 40),
        right = 100 + turn(41, 45),
        peak_x = 55 + turn(31, 50),
        peak_y = 2 + turn(23, 26),
    )
}

/// With a capital letter in front.
fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map(|first| first.to_uppercase().chain(chars).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        Frame {
            region: "eu-west-1".to_owned(),
            instance: 7,
            data: Data::Dated(Source::Near, Duration::from_millis(420)),
            pieces: 0,
        }
    }

    #[test]
    fn a_name_with_markup_shows_as_it_is() {
        let product = Product {
            id: 1,
            sku: "X".to_owned(),
            name: "<script>alert('1')</script>".to_owned(),
            category: "\"Table\" & more".to_owned(),
            description: String::new(),
            price_cents: Cents(100),
            in_stock: 3,
            hue: 10,
        };
        let page = catalogue(&frame(), &[product]);
        assert!(page.contains("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"), "{page}");
        assert!(page.contains("&quot;Table&quot; &amp; more"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }

    #[test]
    fn every_page_says_who_drew_it_and_how_old_its_data_may_be() {
        let page = catalogue(&frame(), &[]);
        assert!(page.contains("eu-west-1"), "{page}");
        assert!(page.contains("this region’s copy, at most 0.4 s old"), "{page}");
    }

    #[test]
    fn the_last_pieces_are_announced() {
        assert!(stock(0).contains("Sold out"));
        assert!(stock(3).contains("Only 3 left"));
        assert!(stock(30).contains("30 in stock"));
    }
}
