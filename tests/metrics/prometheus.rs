//! A real Prometheus looks: `make metrics-test`.

use crate::page::{ask, page, place};
use crate::support::lab::{Lab, wait_until};
use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use testflinger_agent::json::Json;

const EXAMPLE: &str = include_str!("../../cross/install/prometheus.yml");
const DASHBOARD: &str = include_str!("../../cross/install/grafana-dashboard.json");

/// Ended with its test.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Prometheus {
    /// The example, with a target of the test's own and more haste.
    fn start(lab: &Lab, target: SocketAddr) -> Prometheus {
        assert!(EXAMPLE.contains("127.0.0.1:8000") && EXAMPLE.contains("30s"));
        let config = EXAMPLE.replace("127.0.0.1:8000", &target.to_string());
        let path = lab.scratch.path("prometheus.yml");
        fs::write(&path, config.replace("30s", "1s")).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lab.scratch.path("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(lab.scratch.path("prometheus.stderr")).unwrap())
            .spawn()
            .unwrap();
        let prometheus = Prometheus { child, address };
        wait_until("Prometheus is ready", || {
            let is_there = TcpStream::connect(address).is_ok();
            is_there && prometheus.get("/-/ready").contains(" 200 OK")
        });
        prometheus
    }

    fn get(&self, path: &str) -> String {
        // Version 1.0 is neither kept open nor sent in chunks.
        ask(
            self.address,
            format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes(),
        )
    }

    /// The values that a query has just now; what is wrong with it.
    fn query(&self, query: &str) -> Result<Vec<String>, String> {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.get(&format!("/api/v1/query?query={escaped}"));
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let json = Json::parse(body).map_err(|error| format!("{error}: {body}"))?;
        let data = json.get("data").ok_or_else(|| body.to_owned())?;
        let result = data.get("result").ok_or_else(|| body.to_owned())?;
        let value = |item: Json<'_>| item.get("value")?.items().nth(1)?.string();
        Ok(result.items().filter_map(value).collect())
    }

    fn wait_for(&self, query: &str, value: &str) {
        wait_until(&format!("{query} is {value}"), || {
            self.query(query).unwrap() == [value]
        });
    }
}

/// The queries of the dashboard, with the variables as Grafana would set them.
fn queries() -> Vec<String> {
    let dashboard = Json::parse(DASHBOARD).unwrap();
    let panels = dashboard.get("panels").unwrap();
    let mut queries = Vec::new();
    for panel in panels.items() {
        for target in panel.get("targets").unwrap().items() {
            let query = target.get("expr").unwrap().string().unwrap();
            let query = query.replace("$agent", ".*");
            let query = query
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h");
            assert!(!query.contains('$'), "{query}");
            queries.push(query);
        }
    }
    queries
}

#[test]
#[ignore = "needs Prometheus; make metrics-test has it"]
fn a_real_prometheus_scrapes_the_agent_and_understands_the_dashboard() {
    let lab = Lab::new()
        .with_proxy()
        .metrics("0")
        .command("provision", "true")
        .command(
            "test",
            "echo x; mkdir artifacts; echo x > artifacts/x; exit 1",
        );
    let agent = lab.agent();
    let target = place(&agent);
    let prometheus = Prometheus::start(&lab, target);
    prometheus.wait_for("up{job=\"testflinger-agent\"}", "1");
    for number in ["1", "2"] {
        let job = lab.submit(r#""provision_data": {"url": "x"}, "test_data": {"test_cmds": "x"}"#);
        lab.wait_until_complete(&job);
        prometheus.wait_for("jobs_total", number);
        let provisioned =
            "phase_duration_seconds_count{test_phase=\"provision\",release=\"unknown\"}";
        prometheus.wait_for(provisioned, number);
    }
    let queries = queries();
    assert!(queries.len() > 10);
    for query in &queries {
        let values = prometheus.query(query).unwrap();
        // Of what was not asked for meanwhile, there is no mean.
        let is_number = |value: &String| value != "NaN";
        assert!(values.iter().any(is_number), "nothing comes of {query}");
    }
    assert!(
        prometheus.query("sum(jobs_total").is_err(),
        "a query can fail"
    );
    lab.proxy().set_down(true);
    prometheus.wait_for("testflinger_agent_server_answers", "0");

    let mut lint = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = lint.stdin.take().unwrap();
    input.write_all(page(target).as_bytes()).unwrap();
    drop(input);
    let said = lint.wait_with_output().unwrap();
    assert!(
        said.status.success(),
        "{}",
        String::from_utf8_lossy(&said.stderr)
    );
}
