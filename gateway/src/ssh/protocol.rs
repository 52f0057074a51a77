//! SSH's own settings: which algorithms, which sizes, which times.

use std::{borrow::Cow, time::Duration};

use russh::{
    Limits, Preferred, SshId, cipher, compression, kex,
    keys::{Algorithm, EcdsaCurve, PrivateKey},
    mac,
    server::Config,
};

use super::{handler::methods, inbox::WINDOW};

/// The largest data packet; 32 KiB is what every client takes.
const PACKET: u32 = 32 * 1024;

/// Wrong tries of one connection.
const MAX_TRIES: usize = 6;

/// A client that is silent is asked this often whether it is there, and taken for gone after so many times. Someone who
/// closes a laptop for five minutes comes back to their shell.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TRIES: usize = 20;

/// New keys after this much either way, well below what RFC 4344 allows, and after this time.
const REKEY_BYTES: usize = 1 << 30;
const REKEY_AFTER: Duration = Duration::from_secs(3600);

/// Elliptic curves and post-quantum, encrypt-then-MAC or AEAD, and nothing with SHA-1. Strict key exchange (against
/// Terrapin) is with those who have it.
const KEX: &[kex::Name] = &[
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::EXTENSION_SUPPORT_AS_SERVER,
    kex::EXTENSION_OPENSSH_STRICT_KEX_AS_SERVER,
];

/// AES first: with its processor instructions it is several times as fast.
const CIPHERS: &[cipher::Name] = &[
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_256_CTR,
    cipher::AES_128_CTR,
];

const MACS: &[mac::Name] = &[mac::HMAC_SHA256_ETM, mac::HMAC_SHA512_ETM];

/// Of host keys and of the keys that clients prove themselves with.
const KEYS: &[Algorithm] = &[
    Algorithm::Ed25519,
    Algorithm::SkEd25519,
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP256,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP384,
    },
    Algorithm::Ecdsa {
        curve: EcdsaCurve::NistP521,
    },
    Algorithm::SkEcdsaSha2NistP256,
];

/// For russh.
pub(super) fn config(host_key: PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-Guestline".into()),
        methods: methods(),
        // Refusals have a pace of their own, in `login`.
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: None,
        max_auth_attempts: MAX_TRIES,
        keys: vec![host_key],
        window_size: WINDOW,
        maximum_packet_size: PACKET,
        limits: Limits::new(REKEY_BYTES, REKEY_BYTES, REKEY_AFTER),
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(&[]),
            cipher: Cow::Borrowed(CIPHERS),
            mac: Cow::Borrowed(MACS),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        keepalive_interval: Some(KEEP_ALIVE),
        keepalive_max: KEEP_ALIVE_TRIES,
        // The same once more, for a client that does not take what is sent.
        inactivity_timeout: Some(KEEP_ALIVE * (KEEP_ALIVE_TRIES as u32 + 2)),
        nodelay: true,
        ..Config::default()
    }
}
