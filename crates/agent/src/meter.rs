//! Counts what the actuators do, by the names of [`Metric`], and shows it as Prometheus text.

use std::collections::BTreeMap;

use isles_model::{
    Metric, RegionName,
    metric::{Count, Kind, Label},
};
use prometheus::{CounterVec, Encoder, GaugeVec, HistogramOpts, HistogramVec, Opts, Registry, TextEncoder};

/// Upper bounds of the latency buckets, in seconds: from a local answer to a held write.
const SECONDS_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];

/// The registry of one agent.
pub struct Registered {
    registry: Registry,
    series: BTreeMap<Metric, Series>,
}

enum Series {
    Counter(CounterVec),
    Gauge(GaugeVec),
    Histogram(HistogramVec),
}

impl Registered {
    /// Registers every metric, with `region` as a constant label.
    ///
    /// # Errors
    /// When two metrics share a name, which the enum does not allow.
    pub fn new(region: &RegionName) -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let mut series = BTreeMap::new();
        for &metric in Metric::ALL {
            let labels: Vec<&str> = metric.labels().iter().map(|label| Label::name(*label)).collect();
            let opts = Opts::new(metric.name(), metric.help()).const_label("region", region.as_str());
            let one = match metric.kind() {
                Kind::Counter => {
                    let counter = CounterVec::new(opts, &labels)?;
                    registry.register(Box::new(counter.clone()))?;
                    Series::Counter(counter)
                }
                Kind::Gauge => {
                    let gauge = GaugeVec::new(opts, &labels)?;
                    registry.register(Box::new(gauge.clone()))?;
                    Series::Gauge(gauge)
                }
                Kind::Histogram => {
                    let opts = HistogramOpts { common_opts: opts, buckets: SECONDS_BUCKETS.to_vec() };
                    let histogram = HistogramVec::new(opts, &labels)?;
                    registry.register(Box::new(histogram.clone()))?;
                    Series::Histogram(histogram)
                }
            };
            // A series without labels is shown from the start: its absence would read as "no such metric".
            if labels.is_empty() {
                one.touch();
            }
            series.insert(metric, one);
        }
        Ok(Self { registry, series })
    }

    /// Everything counted so far, in Prometheus text format 0.0.4.
    ///
    /// # Errors
    /// When a series cannot be encoded.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

impl Series {
    fn touch(&self) {
        match self {
            Self::Counter(counter) => drop(counter.get_metric_with_label_values::<&str>(&[])),
            Self::Gauge(gauge) => drop(gauge.get_metric_with_label_values::<&str>(&[])),
            Self::Histogram(histogram) => drop(histogram.get_metric_with_label_values::<&str>(&[])),
        }
    }
}

impl Count for Registered {
    fn add(&self, metric: Metric, labels: &[&str], amount: u64) {
        if let Some(Series::Counter(counter)) = self.series.get(&metric)
            && let Ok(one) = counter.get_metric_with_label_values(labels)
        {
            one.inc_by(amount as f64);
        }
    }

    fn set(&self, metric: Metric, labels: &[&str], value: f64) {
        if let Some(Series::Gauge(gauge)) = self.series.get(&metric)
            && let Ok(one) = gauge.get_metric_with_label_values(labels)
        {
            one.set(value);
        }
    }

    fn seconds(&self, metric: Metric, labels: &[&str], seconds: f64) {
        if let Some(Series::Histogram(histogram)) = self.series.get(&metric)
            && let Ok(one) = histogram.get_metric_with_label_values(labels)
        {
            one.observe(seconds);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_is_shown_with_its_region_and_labels() {
        let meter = Registered::new(&"eu-west-1".parse().unwrap()).unwrap();
        for &metric in Metric::ALL {
            let values = vec!["x"; metric.labels().len()];
            match metric.kind() {
                Kind::Counter => meter.add(metric, &values, 2),
                Kind::Gauge => meter.set(metric, &values, 2.0),
                Kind::Histogram => meter.seconds(metric, &values, 2.0),
            }
        }
        let text = meter.text().unwrap();
        for metric in Metric::ALL {
            assert!(text.contains(&format!("# HELP {} {}", metric.name(), metric.help())), "{text}");
            let line = text.lines().find(|line| line.starts_with(metric.name())).unwrap();
            assert!(line.contains("region=\"eu-west-1\""), "{line}");
            for label in metric.labels() {
                assert!(line.contains(&format!("{}=\"x\"", label.name())), "{line}");
            }
        }
    }
}
