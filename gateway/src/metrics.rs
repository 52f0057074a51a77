//! What Prometheus reads.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// The numbers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    registry: Registry,
    operations: Family<Operation, Counter>,
    durations: Family<Verb, Histogram>,
    refused: Family<Refused, Counter>,
    wakes: Histogram,
    live: Gauge,
}

/// Few values each: verbs and codes are ours, never a client's.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    verb: &'static str,
    result: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verb {
    verb: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Refused {
    code: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // 1 ms to 65 s, and 50 ms to 100 s.
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 17));
        let wakes = Histogram::new(exponential_buckets(0.05, 2.0, 12));
        let (operations, refused, live) = (Family::default(), Family::default(), Gauge::default());
        let durations = Family::<Verb, Histogram>::new_with_constructor(histogram);
        let mut registry = Registry::with_prefix("guestline_gateway");
        registry.register(
            "operations",
            "Permitted operations that ended, by verb and result",
            operations.clone(),
        );
        registry.register_with_unit(
            "operation_duration",
            "From the request to the end of the answer",
            Unit::Seconds,
            durations.clone(),
        );
        registry.register(
            "refused",
            "Requests that were refused before anything else happened, by code",
            refused.clone(),
        );
        registry.register_with_unit(
            "wake_duration",
            "Starts of sleeping VMs that succeeded",
            Unit::Seconds,
            wakes.clone(),
        );
        registry.register(
            "live_operations",
            "Operations that stream at the moment",
            live.clone(),
        );
        let inner = Inner {
            registry,
            operations,
            durations,
            refused,
            wakes,
            live,
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    pub(crate) fn ended(&self, verb: &'static str, result: &str, took: Duration) {
        let label = Operation {
            verb,
            result: result.into(),
        };
        self.inner.operations.get_or_create(&label).inc();
        self.inner
            .durations
            .get_or_create(&Verb { verb })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn refused(&self, code: &'static str) {
        self.inner.refused.get_or_create(&Refused { code }).inc();
    }

    pub(crate) fn woken(&self, took: Duration) {
        self.inner.wakes.observe(took.as_secs_f64());
    }

    /// In Prometheus' text format.
    pub(crate) fn to_text(&self, live: usize) -> String {
        self.inner.live.set(live as i64);
        let mut text = String::new();
        // Writing to a String does not fail.
        let _ = encode(&mut text, &self.inner.registry);
        text
    }
}
