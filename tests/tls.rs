//! Servers that speak TLS: whom the agent trusts, whom it is, and what it says
//! when that does not fit.
#![cfg(feature = "tls")]
#![allow(
    clippy::unwrap_used,
    reason = "a test's helper fails as loudly as the test"
)]

mod support;

use rcgen::KeyPair;
use rustls::version::TLS12;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;
use support::lab::{Agent, Lab, is_alive, quoted};
use support::means;
use support::program;
use support::tls::{
    Authority, Identity, LOOPBACK, NOW, Terminator, self_signed, server, server_of,
};
use testflinger_agent::job::Phase;
use testflinger_agent::sys::clock;

/// How many lines of the agent's log hold the text.
fn said(agent: &Agent, text: &str) -> usize {
    agent
        .log()
        .lines()
        .filter(|line| line.contains(text))
        .count()
}

fn write(lab: &Lab, name: &str, text: &str) -> PathBuf {
    let path = lab.scratch.path(name);
    fs::write(&path, text).unwrap();
    path
}

/// A key of the configuration and the file that it names.
fn name_file(lab: Lab, key: &str, text: &str) -> Lab {
    let path = write(&lab, &format!("{key}.pem"), text);
    lab.set(key, &quoted(path.to_str().unwrap()))
}

/// A lab behind TLS.
fn lab_that_shows(identity: &Identity) -> (Lab, Terminator) {
    let lab = Lab::new().command(
        "test",
        "echo tested; mkdir artifacts; echo kept > artifacts/x",
    );
    let terminator = Terminator::start(lab.server.address(), server(identity, None));
    let lab = lab.behind(&terminator.url());
    (lab, terminator)
}

/// Hands the agent a job, which comes back whole.
fn works(lab: &Lab) {
    let job = lab.submit_test();
    lab.wait_until_complete(&job);
    assert_eq!(lab.body(&job, Phase::Test), "tested\n");
    assert_eq!(lab.status(&job, "test"), Some(0));
    assert!(lab.server.artifact(&job).is_some());
}

#[test]
fn a_lab_has_an_authority_of_its_own() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let agent = lab.agent();
    works(&lab);
    assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());
    assert!(terminator.accepted() > 0);
    let exchanges = lab.server.exchanges().len();
    let connections = terminator.accepted();
    assert!(
        connections * 2 < exchanges,
        "{connections} handshakes for {exchanges} calls"
    );
}

#[test]
fn a_lab_s_authority_is_in_a_bundle_of_the_system() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&["localhost"], NOW));
    let bundle = [Authority::new().certificate, authority.certificate].join("\n");
    let bundle = write(&lab, "bundle.pem", &bundle);
    let url = terminator.url().replace("127.0.0.1", "localhost");
    let lab = lab
        .behind(&url)
        .environment("SSL_CERT_FILE", bundle.to_str().unwrap());
    let agent = lab.agent();
    works(&lab);
    assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());
}

#[test]
fn a_bundle_of_the_system_that_is_empty_is_as_good_as_none() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&LOOPBACK, NOW));
    let bundle = write(&lab, "bundle.pem", "");
    let trusted = write(&lab, "authority.pem", &authority.certificate);
    let lab = lab
        .behind(&terminator.url())
        .environment("SSL_CERT_FILE", bundle.to_str().unwrap())
        .set("ca_certificate", &quoted(trusted.to_str().unwrap()));
    let agent = lab.agent();
    works(&lab);
    agent.wait_for_log("holds no certificate in PEM form; going on without the system's");
}

/// Shows the agent what it must not accept, then what it must; says what it said
/// of the former.
fn recovers(lab: Lab, terminator: &Terminator, authority: &Authority, cause: &str) -> String {
    let url = terminator.url();
    let agent = lab.agent();
    agent.wait_for_log(&format!("cannot reach {url}: {cause}"));
    let first = terminator.accepted();
    support::lab::wait_until("it tries again", || terminator.accepted() > first + 1);
    assert!(lab.server.exchanges().is_empty(), "{}", lab.story());
    terminator.show(server(&authority.issue(&LOOPBACK, NOW), None));
    works(&lab);
    let log = agent.log();
    // Once; that it was cut for a moment when the certificate changed, as well.
    let fault = format!("cannot reach {url}: {cause}");
    assert_eq!(said(&agent, &fault), 1, "{log}");
    assert!(said(&agent, "cannot reach") <= 2, "{log}");
    let over = format!("can reach {url} again, after ");
    assert_eq!(said(&agent, &over), 1, "{log}");
    let mut lines = log.lines().filter(|line| line.contains("cannot reach"));
    let line = lines.next().unwrap();
    assert!(line.ends_with("; trying again"), "{line}");
    line.to_owned()
}

#[test]
fn row_17_a_board_whose_clock_is_not_set_is_told_so_and_works_when_it_is() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&LOOPBACK, (3000, 4000)));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let said = recovers(
        lab,
        &terminator,
        &authority,
        "the server's certificate is not yet valid: is this board's clock set? It says 2",
    );
    // Unless the day is over just now.
    let now = clock::iso8601(SystemTime::now());
    assert!(said.contains(&now[..10]), "{said}");
}

#[test]
fn an_expired_certificate_is_its_administrator_s_affair() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&LOOPBACK, (2000, 2001)));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let cause = "the server's certificate has expired; its administrator has to renew it";
    recovers(lab, &terminator, &authority, cause);
}

#[test]
fn an_issuer_whom_nobody_knows_can_be_named() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&Authority::new().issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let cause = "the server's certificate was issued by nobody whom this board trusts; name the \
                 issuer's certificate with ca_certificate";
    recovers(lab, &terminator, &authority, cause);
}

#[test]
fn an_authority_that_was_made_anew_is_not_the_one_it_was() {
    let (old, new) = (Authority::named("the lab"), Authority::named("the lab"));
    let (lab, terminator) = lab_that_shows(&new.issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &old.certificate);
    let cause = "the server's certificate was not signed by the authority of that name whom this \
                 board trusts; if the authority was made anew, ca_certificate needs its new \
                 certificate";
    recovers(lab, &terminator, &old, cause);
}

#[test]
fn a_certificate_for_another_name_says_for_which() {
    let authority = Authority::new();
    let (lab, terminator) = lab_that_shows(&authority.issue(&["elsewhere.example"], NOW));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let cause = "the server's certificate is for another name: ";
    let said = recovers(lab, &terminator, &authority, cause);
    assert!(
        said.contains("elsewhere.example") && said.contains("127.0.0.1"),
        "{said}"
    );
}

#[test]
fn a_certificate_that_is_its_own_authority_is_no_server_s() {
    let (authority, own) = (Authority::new(), self_signed());
    let (lab, terminator) = lab_that_shows(&own);
    let trusted = format!("{}{}", authority.certificate, own.certificate);
    let lab = name_file(lab, "ca_certificate", &trusted);
    let cause = "the server shows an authority's own certificate (as `openssl req -x509` makes); \
                 make an authority, let that issue a certificate for the server, and name the \
                 authority's with ca_certificate";
    recovers(lab, &terminator, &authority, cause);
}

/// What the agent says of a server that answers every hello with these bytes.
fn it_is_said_of(answer: &'static [u8], cause: &str) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // The hello, so that no reset overtakes the answer.
            let mut hello = [0; 16 << 10];
            let _ = stream.read(&mut hello);
            let _ = stream.write_all(answer);
        }
    });
    let lab = Lab::new().behind(&url);
    let agent = lab.agent();
    agent.wait_for_log(&format!("cannot reach {url}: {cause}; trying again"));
}

#[test]
fn a_server_without_tls_is_told_from_one_that_is_away() {
    it_is_said_of(
        b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
        "it does not speak TLS: is server_address meant to begin with http://?",
    );
}

#[test]
fn a_server_that_ends_the_handshake_may_want_a_certificate() {
    // A fatal alert: handshake failure, and one of a client's signature.
    it_is_said_of(
        &[21, 3, 3, 0, 2, 2, 40],
        "the server ended the handshake: it may want a certificate of this agent \
         (client_certificate), or speak no TLS that this agent does",
    );
    it_is_said_of(
        &[21, 3, 3, 0, 2, 2, 51],
        "the server does not accept this agent's certificate (client_certificate): DecryptError",
    );
}

#[test]
fn a_server_of_an_older_version_will_do() {
    let authority = Authority::new();
    let (identity, client) = (
        authority.issue(&LOOPBACK, NOW),
        authority.issue(&["agent.example"], NOW),
    );
    let old = server_of(&[&TLS12], &identity, Some(&authority));
    let (lab, terminator) = lab_that_shows(&identity);
    terminator.show(Arc::clone(&old));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let lab = name_file(lab, "client_certificate", &client.certificate);
    let lab = name_file(lab, "client_key", &client.key);
    let agent = lab.agent();
    works(&lab);
    assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());

    let (lab, terminator) = lab_that_shows(&identity);
    terminator.show(old);
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let cause = "the server wants a certificate of this agent; name one with client_certificate \
                 and client_key";
    recovers(lab, &terminator, &authority, cause);
}

#[test]
fn row_31_no_token_goes_from_https_to_http() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let place = format!("http://{}/elsewhere", elsewhere.local_addr().unwrap());
    let authority = Authority::new();
    let (lab, _terminator) = lab_that_shows(&authority.issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let headers = [("Location", place.as_str())];
    let question = "/v1/agents/data/*";
    lab.server
        .answer_with("GET", question, 1, 307, &headers, "");
    let agent = lab.agent();
    agent.wait_for_log(&format!("points to {place}; change server_address"));
    works(&lab);
    let nobody = elsewhere.accept().unwrap_err();
    assert_eq!(nobody.kind(), ErrorKind::WouldBlock);
}

/// A lab whose server takes certain clients only.
fn lab_of_members(authority: &Authority, members: &Authority) -> (Lab, Terminator) {
    let identity = authority.issue(&LOOPBACK, NOW);
    let (lab, terminator) = lab_that_shows(&identity);
    terminator.show(server(&identity, Some(members)));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    (lab, terminator)
}

/// The same with the agent as a client.
fn member_works(client: &Identity, authority: &Authority) {
    let (lab, _terminator) = lab_of_members(authority, authority);
    let lab = name_file(lab, "client_certificate", &client.certificate);
    let lab = name_file(lab, "client_key", &client.key);
    let agent = lab.agent();
    works(&lab);
    assert_eq!(said(&agent, "cannot"), 0, "{}", agent.log());
}

#[test]
fn a_server_knows_the_agent_by_its_certificate() {
    let authority = Authority::new();
    let client = authority.issue(&["agent.example"], NOW);
    assert!(client.key.starts_with("-----BEGIN PRIVATE KEY-----"));
    member_works(&client, &authority);
}

#[test]
fn a_client_s_key_may_be_written_as_openssl_writes_it() {
    let authority = Authority::new();
    let directory = support::lab::Scratch::new();
    let file = |name: &str| directory.path(name).to_str().unwrap().to_owned();
    let (sec1, pkcs1, pkcs8) = (file("sec1"), file("pkcs1"), file("pkcs8"));
    let commands = [
        format!("ecparam -name secp384r1 -genkey -out {sec1}"),
        format!("genrsa -traditional -out {pkcs1} 2048"),
    ];
    for (command, path, begin) in [
        (&commands[0], &sec1, "-----BEGIN EC PARAMETERS-----"),
        (&commands[1], &pkcs1, "-----BEGIN RSA PRIVATE KEY-----"),
    ] {
        let words: Vec<_> = command.split(' ').collect();
        let convert = format!("pkcs8 -topk8 -nocrypt -in {path} -out {pkcs8}");
        let convert: Vec<_> = convert.split(' ').collect();
        if !means::openssl(&words) || !means::openssl(&convert) {
            return;
        }
        let pair = KeyPair::from_pem(&fs::read_to_string(&pkcs8).unwrap()).unwrap();
        let mut client = authority.certify(&pair, &["agent.example"], NOW);
        client.key = fs::read_to_string(path).unwrap();
        assert!(client.key.starts_with(begin), "{command}");
        member_works(&client, &authority);
    }
}

#[test]
fn a_server_that_takes_members_only_says_so() {
    let (authority, members) = (Authority::new(), Authority::new());
    let (lab, terminator) = lab_of_members(&authority, &members);
    let cause = "the server wants a certificate of this agent; name one with client_certificate \
                 and client_key";
    recovers(lab, &terminator, &authority, cause);

    let (lab, terminator) = lab_of_members(&authority, &members);
    let stranger = authority.issue(&["agent.example"], NOW);
    let lab = name_file(lab, "client_certificate", &stranger.certificate);
    let lab = name_file(lab, "client_key", &stranger.key);
    let cause = "the server does not accept this agent's certificate (client_certificate): ";
    recovers(lab, &terminator, &authority, cause);
}

#[test]
fn files_that_are_not_what_they_should_be_end_the_agent_with_a_message() {
    let authority = Authority::new();
    let one = authority.issue(&["one"], NOW);
    let other = authority.issue(&["other"], NOW);
    let body = "-----BEGIN CERTIFICATE-----\nZ2FyYmFnZQ==\n-----END CERTIFICATE-----\n";
    let behind = format!("{}{body}", authority.certificate);
    let cut = &authority.certificate[..authority.certificate.len() / 2];
    let locked = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nZ2FyYmFnZQ==\n\
                  -----END ENCRYPTED PRIVATE KEY-----\n";
    let table: [(&[(&str, &str)], &str); 9] = [
        (
            &[("ca_certificate", "garbage")],
            "ca_certificate.pem holds no certificate in PEM form",
        ),
        (&[("ca_certificate", cut)], "ca_certificate.pem is broken: "),
        (
            &[("ca_certificate", &behind)],
            "ca_certificate.pem is broken: certificate 2 in it is none",
        ),
        (
            &[("ca_certificate", &one.key)],
            "ca_certificate.pem holds no certificate in PEM form",
        ),
        (
            &[("client_certificate", &one.certificate)],
            "client_certificate and client_key need each other",
        ),
        (
            &[("client_key", &one.key)],
            "client_certificate and client_key need each other",
        ),
        (
            &[("client_certificate", &one.certificate), ("client_key", "")],
            "client_key.pem holds no private key (PKCS#8, PKCS#1 or SEC1 in PEM form)",
        ),
        (
            &[
                ("client_certificate", &one.certificate),
                ("client_key", locked),
            ],
            "client_key.pem is encrypted, and there is nobody to ask for its passphrase; ",
        ),
        (
            &[
                ("client_certificate", &one.certificate),
                ("client_key", &other.key),
            ],
            "client_certificate.pem: ",
        ),
    ];
    // At once: each waits ten seconds before it ends.
    let started: Vec<_> = table
        .into_iter()
        .map(|(files, message)| {
            let mut lab = Lab::new().behind("https://127.0.0.1:1");
            for (key, text) in files {
                lab = name_file(lab, key, text);
            }
            let agent = lab.agent();
            (lab, agent, message)
        })
        .collect();
    let lab = Lab::new().behind("https://127.0.0.1:1");
    let lab = lab.set("ca_certificate", "/nonexistent/ca.pem");
    let agent = lab.agent();
    let missing = (lab, agent, "cannot read /nonexistent/ca.pem: No such file");
    for (_lab, mut agent, message) in started.into_iter().chain([missing]) {
        assert_eq!(agent.wait(), 2, "{message}: {}", agent.log());
        let log = agent.log();
        assert!(log.contains(message), "{message}: {log}");
        assert!(!log.contains("panicked"), "{log}");
        assert!(!log.contains("PRIVATE"), "{log}");
    }
}

#[test]
fn a_hangup_with_broken_files_is_refused_and_the_old_ones_stay() {
    let authority = Authority::new();
    let (lab, _terminator) = lab_that_shows(&authority.issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &authority.certificate);
    let agent = lab.agent();
    agent.wait_for_log("for the queues");
    write(&lab, "ca_certificate.pem", "garbage");
    agent.signal("HUP");
    agent.wait_for_log("holds no certificate in PEM form; the configuration stays as it was");
    assert!(is_alive(agent.pid()));
    works(&lab);
}

#[test]
fn a_hangup_brings_a_new_authority() {
    if !means::is_native("the agent cannot become a new image of a foreign binary") {
        return;
    }
    let (old, new) = (Authority::new(), Authority::new());
    let (lab, _terminator) = lab_that_shows(&new.issue(&LOOPBACK, NOW));
    let lab = name_file(lab, "ca_certificate", &old.certificate);
    let agent = lab.agent();
    agent.wait_for_log("was issued by nobody");
    write(&lab, "ca_certificate.pem", &new.certificate);
    agent.signal("HUP");
    works(&lab);
    assert!(is_alive(agent.pid()), "it is the same process");
}

#[test]
fn a_job_that_is_run_at_hand_needs_no_tls() {
    let lab = Lab::new()
        .behind("https://nowhere.invalid")
        .set("ca_certificate", "/nonexistent/ca.pem")
        .command("test", "echo tested");
    write(&lab, "conf", &lab.configuration("at-hand"));
    write(
        &lab,
        "job",
        "job_queue: lab\ntest_data:\n  test_cmds: none\n",
    );
    let ended = program::run(&lab.scratch.path(""), &["run", "job", "-c", "conf"]);
    assert_eq!(ended.status, 0, "{ended:?}");
    assert!(ended.stdout.contains("tested\n"), "{ended:?}");
}
