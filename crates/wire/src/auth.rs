//! Secrets of the protocol: the nonces and the proof of a pre-shared token, and the token that owns a segment.

use std::fmt;

use ring::hmac;

/// Random bytes that make each handshake different. The caller draws them.
pub type Nonce = [u8; 16];

/// Keeps a proof from being of use in any other protocol that shares the token.
const CONTEXT: &[u8] = b"rackmem page protocol 1 client proof";

/// HMAC-SHA256 over both nonces, keyed with the pre-shared token: shows that the client knows the token, which itself
/// never travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Proof(pub [u8; 32]);

impl Proof {
    /// The proof that a client which knows `token` sends.
    pub fn new(token: &[u8], client: &Nonce, server: &Nonce) -> Self {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, token));
        context.update(CONTEXT);
        context.update(client);
        context.update(server);
        let mut proof = [0; 32];
        proof.copy_from_slice(context.sign().as_ref());
        Self(proof)
    }

    /// Whether this proof was made with `token` and these nonces; takes the same time whatever the answer.
    pub fn verify(&self, token: &[u8], client: &Nonce, server: &Nonce) -> bool {
        let message = [CONTEXT, client, server].concat();
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, token), &message, &self.0).is_ok()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Proof(..)")
    }
}

/// The secret that owns a segment, drawn by the client that creates it.
#[derive(Clone, Copy)]
pub struct OwnerToken(pub [u8; 16]);

/// Compares every byte, so that the time taken does not tell how many were right.
impl PartialEq for OwnerToken {
    fn eq(&self, other: &Self) -> bool {
        let difference = self.0.iter().zip(&other.0).fold(0, |all, (one, two)| all | (one ^ two));
        std::hint::black_box(difference) == 0
    }
}

impl Eq for OwnerToken {}

impl fmt::Debug for OwnerToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OwnerToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_and_nonces_verify() {
        let proof = Proof::new(b"token", &[1; 16], &[2; 16]);
        assert!(proof.verify(b"token", &[1; 16], &[2; 16]));
        assert!(!proof.verify(b"tokeN", &[1; 16], &[2; 16]));
        assert!(!proof.verify(b"token", &[2; 16], &[1; 16]));
    }

    #[test]
    fn secrets_do_not_print() {
        assert_eq!(format!("{:?}", OwnerToken(*b"0123456789abcdef")), "OwnerToken(..)");
        assert!(OwnerToken([7; 16]) == OwnerToken([7; 16]) && OwnerToken([7; 16]) != OwnerToken([8; 16]));
    }
}
