//! Reads the changes that PostgreSQL's output plugin `pgoutput` writes, protocol version 1 (PostgreSQL, chapter
//! 55.9 "Logical Replication Message Formats").
//!
//! Every length and count in the bytes is checked against what is there: a malformed message is an error, never a
//! panic, and never an allocation larger than the message.

use isles_model::Lsn;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pgoutput message is malformed: {0}")]
pub struct Malformed(pub &'static str);

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message<'a> {
    /// A transaction begins; it is sent when it has committed.
    Begin,
    /// It ends.
    Commit {
        /// Where its commit record ends: a follower that has applied it continues here.
        end: Lsn,
        /// When it committed, in microseconds since 2000-01-01 00:00 UTC, by the writer's clock.
        at_us: i64,
    },
    /// What a table looks like from here on.
    Relation(Relation),
    /// A new row.
    Insert {
        /// The table's number.
        relation: u32,
        /// The row.
        new: Tuple<'a>,
    },
    /// A changed row.
    Update {
        /// The table's number.
        relation: u32,
        /// Its old key or old row; absent when the key has not changed.
        old: Option<Tuple<'a>>,
        /// The row now.
        new: Tuple<'a>,
    },
    /// A row that is gone.
    Delete {
        /// The table's number.
        relation: u32,
        /// Its old key or old row.
        old: Tuple<'a>,
    },
    /// Tables that were emptied.
    Truncate {
        /// Their numbers.
        relations: Vec<u32>,
    },
    /// Something that changes no row: a type, an origin, a message of somebody's.
    Other,
}

/// A table as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relation {
    /// Its number.
    pub id: u32,
    /// Its schema; empty for `pg_catalog`.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// Its columns in the order of tuples.
    pub columns: Vec<RelationColumn>,
}

/// A column as the stream describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelationColumn {
    /// Part of the replica identity.
    pub is_key: bool,
    /// Its name.
    pub name: String,
}

/// The values of a row, in the order of its table's columns.
pub type Tuple<'a> = Vec<Value<'a>>;

/// One value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL NULL; in an old key also a column that is no part of it.
    Null,
    /// A large value that was not changed and is not sent.
    Unchanged,
    /// Its text.
    Text(&'a [u8]),
}

/// Reads one message.
pub fn parse(bytes: &[u8]) -> Result<Message<'_>, Malformed> {
    let mut input = Input(bytes);
    let message = match input.u8()? {
        b'B' => {
            input.take(20)?;
            Message::Begin
        }
        b'C' => {
            input.take(9)?;
            let end = Lsn(u64::from_be_bytes(input.array()?));
            Message::Commit { end, at_us: i64::from_be_bytes(input.array()?) }
        }
        b'R' => Message::Relation(input.relation()?),
        b'I' => {
            let relation = input.u32()?;
            input.expect(b'N')?;
            Message::Insert { relation, new: input.tuple()? }
        }
        b'U' => {
            let relation = input.u32()?;
            let (old, mark) = match input.u8()? {
                b'K' | b'O' => (Some(input.tuple()?), input.u8()?),
                mark => (None, mark),
            };
            if mark != b'N' {
                return Err(Malformed("an update without a new row"));
            }
            Message::Update { relation, old, new: input.tuple()? }
        }
        b'D' => {
            let relation = input.u32()?;
            if !matches!(input.u8()?, b'K' | b'O') {
                return Err(Malformed("a delete without an old row"));
            }
            Message::Delete { relation, old: input.tuple()? }
        }
        b'T' => {
            let count = input.u32()?;
            input.take(1)?;
            let relations = (0..count).map(|_| input.u32()).collect::<Result<_, _>>()?;
            Message::Truncate { relations }
        }
        b'O' | b'Y' | b'M' => return Ok(Message::Other),
        _ => return Err(Malformed("an unknown kind of message")),
    };
    if input.0.is_empty() { Ok(message) } else { Err(Malformed("more bytes than the message has")) }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.0.split_first_chunk().ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    fn expect(&mut self, mark: u8) -> Result<(), Malformed> {
        if self.u8()? == mark { Ok(()) } else { Err(Malformed("an insert without a new row")) }
    }

    fn count(&mut self) -> Result<usize, Malformed> {
        Ok(usize::from(u16::from_be_bytes(self.array()?)))
    }

    fn text(&mut self) -> Result<String, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0).ok_or(Malformed("a name without an end"))?;
        let name = self.take(end)?;
        self.take(1)?;
        Ok(String::from_utf8_lossy(name).into_owned())
    }

    fn relation(&mut self) -> Result<Relation, Malformed> {
        let (id, schema, name) = (self.u32()?, self.text()?, self.text()?);
        self.take(1)?;
        let columns = (0..self.count()?)
            .map(|_| {
                let is_key = self.u8()? & 1 == 1;
                let name = self.text()?;
                self.take(8)?;
                Ok(RelationColumn { is_key, name })
            })
            .collect::<Result<_, _>>()?;
        Ok(Relation { id, schema, name, columns })
    }

    fn tuple(&mut self) -> Result<Tuple<'a>, Malformed> {
        (0..self.count()?)
            .map(|_| match self.u8()? {
                b'n' => Ok(Value::Null),
                b'u' => Ok(Value::Unchanged),
                b't' => {
                    let length = self.u32()?;
                    let length = usize::try_from(length).map_err(|_| Malformed("a value too long"))?;
                    Ok(Value::Text(self.take(length)?))
                }
                _ => Err(Malformed("an unknown kind of value")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_update_with_an_old_key_is_read() {
        let mut bytes = vec![b'U', 0, 0, 0, 7, b'K', 0, 1, b't', 0, 0, 0, 1, b'5', b'N', 0, 2];
        bytes.extend([b'n', b'u']);
        let expect = Message::Update {
            relation: 7,
            old: Some(vec![Value::Text(b"5")]),
            new: vec![Value::Null, Value::Unchanged],
        };
        assert_eq!(parse(&bytes), Ok(expect));
        assert_eq!(parse(&bytes[..bytes.len() - 1]), Err(Malformed("it ends early")));
        bytes.push(0);
        assert_eq!(parse(&bytes), Err(Malformed("more bytes than the message has")));
    }

    #[test]
    fn a_relation_tells_its_key() {
        let bytes = b"R\0\0\0\x07public\0t\0d\0\x01\x01id\0\0\0\0\x17\xff\xff\xff\xff";
        let Ok(Message::Relation(relation)) = parse(bytes) else { panic!("not a relation") };
        assert_eq!(relation.columns, [RelationColumn { is_key: true, name: "id".into() }]);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(kind in prop::sample::select(b"BCORYIUDTM".to_vec()),
                                          rest in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut bytes = vec![kind];
            bytes.extend(rest);
            let _ = parse(&bytes);
        }
    }
}
