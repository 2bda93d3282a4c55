//! What a request proves who sent it by: a bearer token or a password, and a signature of its body. Secrets are read when the
//! sink begins, and again when they are refused, as they may have been rotated.

use crate::config::{ExternalConfig, secret};
use hmac::{Hmac, KeyInit, Mac};
use reqwest::RequestBuilder;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;
use std::fmt::Write;

/// The header with the signature of the body, `sha256=` and the HMAC-SHA256 in hexadecimal.
pub(super) const SIGNATURE: &str = "X-Signature-256";

/// The secrets of one moment.
pub(super) struct Credentials {
    username: Option<String>,
    password: Option<SecretString>,
    bearer: Option<SecretString>,
    hmac_key: Option<SecretString>,
    /// Made of the key once.
    signer: Option<Hmac<Sha256>>,
}

impl Credentials {
    /// Reads them from the settings, and from the files that these name. The error is for people.
    pub(super) fn read(config: &ExternalConfig) -> Result<Self, String> {
        let bearer = secret(
            config.bearer_token.as_ref(),
            config.bearer_token_file.as_deref(),
        )?;
        let password = secret(config.password.as_ref(), config.password_file.as_deref())?;
        let hmac_key = secret(config.hmac_key.as_ref(), config.hmac_key_file.as_deref())?;
        let token = bearer.as_ref().map(ExposeSecret::expose_secret);
        if token.is_some_and(|token| HeaderValue::from_str(token).is_err()) {
            return Err(
                "sinks.http.bearer_token holds a character that no header may have, such as the end of a line"
                    .to_owned(),
            );
        }
        let signer = hmac_key
            .as_ref()
            .map(|key| <Hmac<Sha256> as KeyInit>::new_from_slice(key.expose_secret().as_bytes()))
            .transpose()
            .map_err(|error| format!("sinks.http.hmac_key: {error}"))?;
        Ok(Self {
            username: config.username.clone(),
            password,
            bearer,
            hmac_key,
            signer,
        })
    }

    /// Whether these are the same secrets.
    pub(super) fn same(&self, other: &Self) -> bool {
        let all = |of: &Self| {
            [&of.password, &of.bearer, &of.hmac_key].map(|secret| {
                secret
                    .as_ref()
                    .map(|secret| secret.expose_secret().to_owned())
            })
        };
        all(self) == all(other)
    }

    /// The request with its proofs.
    pub(super) fn prove(&self, request: RequestBuilder, body: &[u8]) -> RequestBuilder {
        let exposed = |secret: &SecretString| secret.expose_secret().to_owned();
        let request = match (&self.bearer, &self.username) {
            (Some(token), _) => request.bearer_auth(token.expose_secret()),
            (None, Some(user)) => request.basic_auth(user, self.password.as_ref().map(exposed)),
            (None, None) => request,
        };
        match &self.signer {
            Some(signer) => request.header(SIGNATURE, sign(signer.clone(), body)),
            None => request,
        }
    }
}

fn sign(mut signer: Hmac<Sha256>, body: &[u8]) -> String {
    signer.update(body);
    let mut text = "sha256=".to_owned();
    for byte in signer.finalize().into_bytes() {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        let signer = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        assert_eq!(
            sign(signer, b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
