//! Rate limits: per source before anything is asked, per token after it is known.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter, clock::Clock};

use super::error::{ApiError, Code};
use crate::{
    ids::TokenId,
    sessions::{Credential, Principal},
    source::network,
};

/// The limits of a gateway. A source or token may use a second's worth at once.
#[derive(Debug)]
pub(crate) struct Limits {
    sources: Option<DefaultKeyedRateLimiter<IpAddr>>,
    tokens: Option<DefaultKeyedRateLimiter<TokenId>>,
}

impl Limits {
    /// Requests per second; `None` is no limit.
    pub(crate) fn new(per_source: Option<NonZeroU32>, per_token: Option<NonZeroU32>) -> Self {
        Self {
            sources: per_source.map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
            tokens: per_token.map(|rate| RateLimiter::keyed(Quota::per_second(rate))),
        }
    }

    pub(crate) fn check_source(&self, peer: IpAddr) -> Result<(), ApiError> {
        self.sources
            .as_ref()
            .map_or(Ok(()), |limiter| check(limiter, &network(peer)))
    }

    /// The admin has none.
    pub(crate) fn check_principal(&self, principal: &Principal) -> Result<(), ApiError> {
        match (principal, &self.tokens) {
            (
                Principal::Identity {
                    credential: Credential::Token(token),
                    ..
                },
                Some(limiter),
            ) => check(limiter, token),
            _ => Ok(()),
        }
    }

    /// Forgets sources and tokens that are not in use, so that memory stays bounded by those that are.
    pub(crate) fn forget_unused(&self) {
        if let Some(limiter) = &self.sources {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
        if let Some(limiter) = &self.tokens {
            limiter.retain_recent();
            limiter.shrink_to_fit();
        }
    }
}

fn check<K: std::hash::Hash + Eq + Clone>(
    limiter: &DefaultKeyedRateLimiter<K>,
    key: &K,
) -> Result<(), ApiError> {
    limiter.check_key(key).map_err(|not_until| {
        let wait: Duration = not_until.wait_time_from(limiter.clock().now());
        ApiError::new(Code::TooManyRequests, "too many requests: slow down")
            .with("retryAfterMs", wait.as_millis() as u64)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_asks_too_often_is_refused_and_others_are_not() {
        let limits = Limits::new(NonZeroU32::new(3), None);
        let (one, other) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            limits.check_source(one).unwrap();
        }
        assert_eq!(
            limits.check_source(one).unwrap_err().code(),
            Code::TooManyRequests
        );
        limits.check_source(other).unwrap();
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_together() {
        let limits = Limits::new(NonZeroU32::new(1), None);
        limits.check_source("2001:db8::1".parse().unwrap()).unwrap();
        assert!(limits.check_source("2001:db8::2".parse().unwrap()).is_err());
        limits
            .check_source("2001:db8:0:1::1".parse().unwrap())
            .unwrap();
    }
}
