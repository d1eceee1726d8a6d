//! The registry in Prometheus' text format, version 0.0.4.

use super::{ENDPOINTS, Histogram, Registry, STATES};
use crate::job::PHASES;
use std::fmt::Write as _;
use std::time::Duration;

/// Its media type.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(super) fn of(registry: &Registry) -> String {
    let mut page = Page {
        text: String::with_capacity(8 << 10),
        agent_id: &registry.agent_id,
    };
    page.originals(registry);
    page.own(registry);
    page.text
}

/// The text so far. Every sample has the agent's name.
struct Page<'a> {
    text: String,
    agent_id: &'a str,
}

type Labels<'a> = &'a [(&'a str, &'a str)];

impl Page<'_> {
    /// What the original has, under its names.
    fn originals(&mut self, registry: &Registry) {
        self.family("jobs_total", "counter", "Jobs taken");
        self.sample("jobs_total", &[], registry.jobs);
        self.family(
            "failures_total",
            "counter",
            "Phases that did not end with 0",
        );
        for (phase, count) in PHASES.iter().zip(registry.failures) {
            self.sample("failures_total", &[("test_phase", phase.name())], count);
        }
        let name = "recovery_failures_total";
        self.family(name, "counter", "Phases that ended with 46");
        self.sample(name, &[], registry.recovery_failures);
        let name = "phase_duration_seconds";
        self.family(name, "histogram", "How long the phases' commands ran");
        for durations in &registry.durations {
            for (phase, histogram) in PHASES.iter().zip(&durations.phases) {
                if histogram.count() > 0 {
                    let labels = [
                        ("test_phase", phase.name()),
                        ("identifier", &registry.identifier),
                        ("release", &durations.release),
                    ];
                    self.histogram(name, labels, histogram);
                }
            }
        }
    }

    fn histogram(&mut self, name: &str, labels: [(&str, &str); 3], histogram: &Histogram) {
        let bucket = format!("{name}_bucket");
        let [phase, identifier, release] = labels;
        for (end, count) in histogram.buckets() {
            // As the original writes them: some queries have it in quotes.
            let end = format!("{end}.0");
            let labels = [phase, identifier, release, ("le", &*end)];
            self.sample(&bucket, &labels, count);
        }
        let all = [phase, identifier, release, ("le", "+Inf")];
        self.sample(&bucket, &all, histogram.count());
        self.sample(&format!("{name}_count"), &labels, histogram.count());
        self.seconds(&format!("{name}_sum"), &labels, histogram.total());
    }

    /// What only this agent has.
    fn own(&mut self, registry: &Registry) {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        let name = self.mine("build_info", "gauge", "Always 1");
        self.sample(&name, &version, 1);
        let name = self.mine("state", "gauge", "1 for what the agent is doing");
        for state in STATES {
            let is_so = registry.state == state;
            self.sample(&name, &[("state", state.name())], is_so.into());
        }
        let name = self.mine(
            "server_answers",
            "gauge",
            "1 if the last request had an answer",
        );
        self.sample(&name, &[], registry.health.answers().into());
        for (name, kind, help, value) in [
            (
                "reconnects_total",
                "counter",
                "Times that the server was back",
                registry.reconnects,
            ),
            (
                "unsent_records",
                "gauge",
                "Jobs that are over and not wholly sent",
                registry.unsent,
            ),
            (
                "output_bytes_total",
                "counter",
                "Output read from commands",
                registry.output_bytes,
            ),
            (
                "artifacts_total",
                "counter",
                "Artifacts that the server has",
                registry.artifacts,
            ),
            (
                "artifact_bytes_total",
                "counter",
                "Bytes of artifacts sent",
                registry.artifact_bytes,
            ),
        ] {
            let name = self.mine(name, kind, help);
            self.sample(&name, &[], value);
        }
        self.requests(registry);
    }

    /// Only of endpoints that were used.
    fn requests(&mut self, registry: &Registry) {
        let name = self.mine("requests_total", "counter", "Requests, by their answer");
        for (endpoint, requests) in ENDPOINTS.iter().zip(&registry.requests) {
            let classes = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
            for (class, count) in classes.into_iter().zip(requests.by_class) {
                if count > 0 {
                    self.sample(&name, &[("endpoint", endpoint), ("status", class)], count);
                }
            }
        }
        let help = "Time until the head of the answer";
        let name = self.mine("request_seconds", "summary", help);
        for (endpoint, requests) in ENDPOINTS.iter().zip(&registry.requests) {
            let count: u64 = requests.by_class.iter().sum();
            if count > 0 {
                let labels = [("endpoint", *endpoint)];
                self.sample(&format!("{name}_count"), &labels, count);
                self.seconds(&format!("{name}_sum"), &labels, requests.time);
            }
        }
    }

    fn mine(&mut self, name: &str, kind: &str, help: &str) -> String {
        let name = format!("testflinger_agent_{name}");
        self.family(&name, kind, help);
        name
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, value: u64) {
        self.series(name, labels);
        let _ = writeln!(self.text, "{value}");
    }

    fn seconds(&mut self, name: &str, labels: Labels<'_>, time: Duration) {
        self.series(name, labels);
        let (seconds, rest) = (time.as_secs(), time.subsec_micros());
        let _ = writeln!(self.text, "{seconds}.{rest:06}");
    }

    /// All of a line but its value.
    fn series(&mut self, name: &str, labels: Labels<'_>) {
        self.text.push_str(name);
        let mut before = '{';
        for (label, text) in [("agent_id", self.agent_id)].iter().chain(labels) {
            self.text.push(before);
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escape(text);
            self.text.push('"');
            before = ',';
        }
        self.text.push_str("} ");
    }

    /// A label's value.
    fn escape(&mut self, text: &str) {
        for character in text.chars() {
            match character {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metrics;
    use crate::job::Phase;
    use std::time::Duration;

    #[test]
    fn names_labels_and_buckets_are_the_originals() {
        let metrics = Metrics::new("a\\b\"c\nd é", "i\"");
        metrics.job_taken();
        metrics.phase_ended(Phase::FirmwareUpdate, 46);
        metrics.recovery_failed();
        metrics.phase_lasted(Phase::Test, Duration::from_millis(60_500), "22.04.4");
        let text = metrics.text();
        let agent = r#"agent_id="a\\b\"c\nd é""#;
        for line in [
            format!("jobs_total{{{agent}}} 1"),
            format!("failures_total{{{agent},test_phase=\"firmware_update\"}} 1"),
            format!("failures_total{{{agent},test_phase=\"test\"}} 0"),
            format!("recovery_failures_total{{{agent}}} 1"),
            "# TYPE phase_duration_seconds histogram".to_owned(),
        ] {
            assert!(text.lines().any(|one| one == line), "{line}\n{text}");
        }
        let labels = format!(r#"{agent},test_phase="test",identifier="i\"",release="22.04.4""#);
        let buckets = [60, 120, 300, 600, 1_800, 3_600, 7_200, 14_400].map(|end| {
            let count = u8::from(end > 60);
            format!("phase_duration_seconds_bucket{{{labels},le=\"{end}.0\"}} {count}\n")
        });
        let last = format!("phase_duration_seconds_bucket{{{labels},le=\"+Inf\"}} 1\n");
        let all = format!(
            "{}{last}phase_duration_seconds_count{{{labels}}} 1\n\
             phase_duration_seconds_sum{{{labels}}} 60.500000\n",
            buckets.concat()
        );
        assert!(text.contains(&all), "{text}");
    }
}
