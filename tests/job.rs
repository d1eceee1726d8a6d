//! The main job: taken from the queue, run, brought home.

mod support;

use support::lab::Lab;
use testflinger_agent::job::Phase;

#[test]
fn a_job_goes_through_its_phases_and_comes_home() {
    let lab = Lab::new()
        .command("setup", "echo setting up")
        .command("provision", "echo provisioning; echo oops >&2")
        .command("firmware_update", "echo never")
        .command("test", "echo agent=$agent_id; cat testflinger-outcome.json; mkdir artifacts; echo x > artifacts/x; exit 7")
        .command("reserve", "cat testflinger-outcome.json")
        .command("cleanup", "ls");
    let job = lab.submit(
        r#""provision_data": {"distro": "x"}, "firmware_update_data": {"skip": true},
           "test_data": {"test_cmds": "none"}, "reserve_data": {"ssh_keys": []}"#,
    );
    let _agent = lab.agent();
    lab.wait_until_complete(&job);
    assert_eq!(
        lab.output(&job, Phase::Setup),
        "*************************************************\n\
         * Starting testflinger setup phase on lab-agent *\n\
         *************************************************\n\
         setting up\n"
    );
    assert_eq!(lab.body(&job, Phase::Provision), "provisioning\noops\n");
    assert_eq!(
        lab.body(&job, Phase::Test),
        "agent=lab-agent\n{\"status\": {\"setup\": 0, \"provision\": 0}}"
    );
    assert_eq!(
        lab.body(&job, Phase::Reserve),
        "{\"status\": {\"setup\": 0, \"provision\": 0, \"test\": 7}}"
    );
    let statuses = lab.server.status(&job);
    let statuses: Vec<_> = statuses
        .iter()
        .map(|(name, status)| (name.as_str(), *status))
        .collect();
    assert_eq!(
        statuses,
        [
            ("cleanup", 0),
            ("provision", 0),
            ("reserve", 0),
            ("setup", 0),
            ("test", 7)
        ]
    );
    assert!(lab.server.artifact(&job).is_some());
    for exchange in lab.server.exchanges() {
        assert!(exchange.status < 400, "{exchange:?}");
    }
}
