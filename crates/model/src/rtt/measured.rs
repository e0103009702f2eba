//! Typical round trips between AWS regions over the provider's own backbone, in whole milliseconds.
//!
//! These are planning figures, of the kind that providers and probes publish as long-run medians; an agent replaces
//! them by what it measures.

/// (region, region, milliseconds); each pair once.
#[rustfmt::skip]
pub(super) static MEASURED_MS: &[(&str, &str, u64)] = &[
    ("us-east-1", "us-east-2", 13), ("us-east-1", "us-west-1", 62), ("us-east-1", "us-west-2", 66),
    ("us-east-1", "ca-central-1", 16), ("us-east-1", "sa-east-1", 114), ("us-east-1", "eu-west-1", 76),
    ("us-east-1", "eu-west-2", 77), ("us-east-1", "eu-west-3", 82), ("us-east-1", "eu-central-1", 92),
    ("us-east-1", "eu-north-1", 112), ("us-east-1", "ap-south-1", 190), ("us-east-1", "ap-southeast-1", 220),
    ("us-east-1", "ap-southeast-2", 200), ("us-east-1", "ap-northeast-1", 150), ("us-east-1", "ap-northeast-2", 178),
    ("us-east-2", "us-west-1", 52), ("us-east-2", "us-west-2", 51), ("us-east-2", "eu-west-1", 84),
    ("us-east-2", "eu-west-2", 86), ("us-east-2", "eu-central-1", 101), ("us-east-2", "ap-northeast-1", 138),
    ("us-west-1", "us-west-2", 22), ("us-west-1", "eu-west-1", 136), ("us-west-1", "eu-central-1", 150),
    ("us-west-1", "ap-northeast-1", 108), ("us-west-1", "ap-southeast-1", 175), ("us-west-1", "ap-southeast-2", 139),
    ("us-west-2", "eu-west-1", 122), ("us-west-2", "eu-west-2", 132), ("us-west-2", "eu-central-1", 142),
    ("us-west-2", "sa-east-1", 177), ("us-west-2", "ap-northeast-1", 98), ("us-west-2", "ap-northeast-2", 126),
    ("us-west-2", "ap-southeast-1", 164), ("us-west-2", "ap-southeast-2", 140), ("us-west-2", "ap-south-1", 216),
    ("ca-central-1", "eu-west-1", 69), ("ca-central-1", "eu-west-2", 78), ("ca-central-1", "us-west-2", 60),
    ("eu-west-1", "eu-west-2", 12), ("eu-west-1", "eu-west-3", 19), ("eu-west-1", "eu-central-1", 26),
    ("eu-west-1", "eu-north-1", 42), ("eu-west-1", "sa-east-1", 178), ("eu-west-1", "ap-south-1", 122),
    ("eu-west-1", "ap-southeast-1", 172), ("eu-west-1", "ap-southeast-2", 256), ("eu-west-1", "ap-northeast-1", 203),
    ("eu-west-2", "eu-west-3", 10), ("eu-west-2", "eu-central-1", 16), ("eu-west-2", "eu-north-1", 32),
    ("eu-west-2", "ap-southeast-1", 168), ("eu-west-3", "eu-central-1", 10), ("eu-west-3", "ap-southeast-1", 150),
    ("eu-central-1", "eu-north-1", 22), ("eu-central-1", "eu-south-1", 11), ("eu-central-1", "sa-east-1", 203),
    ("eu-central-1", "ap-south-1", 125), ("eu-central-1", "ap-southeast-1", 158),
    ("eu-central-1", "ap-southeast-2", 252), ("eu-central-1", "ap-northeast-1", 226),
    ("ap-south-1", "ap-southeast-1", 60), ("ap-south-1", "ap-northeast-1", 126), ("ap-south-1", "ap-southeast-2", 150),
    ("ap-southeast-1", "ap-southeast-2", 92), ("ap-southeast-1", "ap-southeast-3", 14),
    ("ap-southeast-1", "ap-northeast-1", 70), ("ap-southeast-1", "ap-northeast-2", 74),
    ("ap-southeast-1", "ap-east-1", 37), ("ap-southeast-2", "ap-northeast-1", 104),
    ("ap-southeast-2", "ap-southeast-4", 12), ("ap-northeast-1", "ap-northeast-2", 34),
    ("ap-northeast-1", "ap-northeast-3", 9), ("ap-northeast-1", "ap-east-1", 52),
];
