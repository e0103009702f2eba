//! Looks into a region's ledger for numbered writes that only that region held: lost to the users for now, but kept.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

/// The most of a ledger that is read, in bytes.
const LEDGER_BYTES_MAX: u64 = 256 << 20;

/// Which of these numbered writes of a table the ledger holds. A region without a ledger has nothing to tell.
pub(super) fn holds(path: &Path, table: &str, lost: &BTreeSet<u64>) -> BTreeSet<u64> {
    use std::io::Read as _;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LEDGER_BYTES_MAX).read_to_end(&mut text));
    if read.is_err() || lost.is_empty() {
        return BTreeSet::new();
    }
    found(&String::from_utf8_lossy(&text), table, lost)
}

fn found(ledger: &str, table: &str, lost: &BTreeSet<u64>) -> BTreeSet<u64> {
    let ours = ledger.lines().filter(|line| line.contains(table));
    let mut numbers = BTreeSet::new();
    for line in ours.filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
        collect(&line, &mut numbers);
    }
    numbers.intersection(lost).copied().collect()
}

/// Every value of a column `number`, however deep a row lies in a line.
fn collect(value: &Value, numbers: &mut BTreeSet<u64>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let number = field.as_u64().or_else(|| field.as_str().and_then(|text| text.parse().ok()));
                match number {
                    Some(number) if name == "number" => drop(numbers.insert(number)),
                    Some(_) | None => collect(field, numbers),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, numbers)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_write_is_found_in_the_ledger_and_another_tables_number_is_not() {
        let ledger = r#"{"table":"public.isles_drill_writes_1f","row":{"number":"17","client":"1"}}
{"table":"public.isles_drill_writes_1f","row":{"number":18}}
{"table":"public.orders","row":{"number":19}}
not a line of JSON about isles_drill_writes_1f
"#;
        assert_eq!(
            found(ledger, "isles_drill_writes_1f", &BTreeSet::from([17, 19, 20])),
            BTreeSet::from([17])
        );
    }
}
