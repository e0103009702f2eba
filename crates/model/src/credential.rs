//! The password of the app's role behind the gates: another one for every epoch, known only to agents.
//!
//! An agent derives it from the secret that all agents of one application share. Who knows the epoch alone, or the
//! app's own password, cannot make it; an agent that knows only an old epoch makes an old one, and is refused.

use std::{fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::Epoch;

/// What the passwords of all epochs are made from.
#[derive(Clone)]
pub struct EpochSecret(Arc<str>);

impl EpochSecret {
    /// From the secret that all agents share (`AgentConfig::peer_secret`).
    pub fn new(peer_secret: &str) -> Self {
        Self(peer_secret.into())
    }

    /// The password of the app's role under an epoch: base64 of HMAC-SHA-256 (RFC 2104) of `isles app <epoch>`.
    pub fn app_password(&self, epoch: Epoch) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("HMAC takes keys of every length");
        mac.update(format!("isles app {}", epoch.0).as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }
}

impl fmt::Debug for EpochSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochSecret(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_and_every_secret_has_a_password_of_its_own() {
        let secret = EpochSecret::new("shared");
        assert_eq!(secret.app_password(Epoch(7)), EpochSecret::new("shared").app_password(Epoch(7)));
        assert_ne!(secret.app_password(Epoch(7)), secret.app_password(Epoch(8)));
        assert_ne!(secret.app_password(Epoch(7)), EpochSecret::new("other").app_password(Epoch(7)));
        // HMAC-SHA-256 with key `shared` of `isles app 7`, as `openssl dgst` gives it.
        assert_eq!(secret.app_password(Epoch(7)), "m2gxxbzB28SEUXKwh1ayZ/MTtimS/EBJtcHufiYMZCI=");
    }
}
