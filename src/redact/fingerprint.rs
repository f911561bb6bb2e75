//! Fingerprints of values: a digest, and a hash that finds where one may begin.

use sha2::{Digest, Sha256};

pub(super) fn digest(salt: &str, bytes: &[u8]) -> u64 {
    let digest = Sha256::new()
        .chain_update(salt)
        .chain_update(bytes)
        .finalize();
    first_bytes(&digest)
}

fn first_bytes(digest: &[u8]) -> u64 {
    let bytes = digest.iter().take(8);
    bytes.fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// The bits of a hash that are kept: the upper ones mix all bytes.
pub(super) fn start_bits(hash: u64) -> u32 {
    (hash >> 44) as u32
}

/// A hash that moves along a text one byte at a time (Rabin and Karp), with a base made of the salt.
pub(super) struct RollingHash {
    base: u64,
    length: usize,
    /// The factor of the byte that leaves the window.
    leaving: u64,
}

impl RollingHash {
    pub(super) fn new(salt: &str, length: usize) -> Self {
        let base = first_bytes(&Sha256::digest(salt.as_bytes())) | 1;
        let leaving = (1..length).fold(1, |power: u64, _| power.wrapping_mul(base));
        Self {
            base,
            length,
            leaving,
        }
    }

    pub(super) fn hash(&self, bytes: &[u8]) -> u64 {
        bytes.iter().fold(0, |hash, byte| self.push(hash, *byte))
    }

    fn push(&self, hash: u64, byte: u8) -> u64 {
        let shifted = hash.wrapping_mul(self.base);
        shifted.wrapping_add(u64::from(byte) + 1)
    }

    /// Returns where each window begins, and its hash.
    pub(super) fn windows<'a>(
        &'a self,
        bytes: &'a [u8],
    ) -> impl Iterator<Item = (usize, u64)> + 'a {
        let mut hash = bytes.get(..self.length).map(|first| self.hash(first));
        (0..).map_while(move |at| {
            let here = hash?;
            hash = bytes.get(at + self.length).map(|next| {
                let left = here.wrapping_sub((u64::from(bytes[at]) + 1).wrapping_mul(self.leaving));
                self.push(left, *next)
            });
            Some((at, here))
        })
    }
}
