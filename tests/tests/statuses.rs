//! What is wrong is answered with the right status and one sentence, by the controller's program over HTTP; and nothing is half done.

#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use rackmem_e2e::{Process, free_address, rackmem};
use serde_json::Value;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// One brick of each kind at one switch. Nobody listens on the agent's address, and the memory brick's is only a number.
const RACK: &str = r#"
rack = [{ name = "r1" }]
tray = [{ name = "t1", rack = "r1" }]
compute = [
    { name = "c1", tray = "t1", cores = 1, local = "256MiB", ports = 1, address = "127.0.0.1:1" },
    { name = "c2", tray = "t1", cores = 1, local = "256MiB", ports = 1 },
]
memory = [{ name = "m1", tray = "t1", size = "1GiB", ports = 1, address = "sim:m1:7070" }]
switch = [{ name = "s1", tray = "t1", kind = "circuit", ports = 4 }]
cable = [{ ends = ["c1:0", "s1:0"] }, { ends = ["c2:0", "s1:1"] }, { ends = ["m1:0", "s1:2"] }]
"#;

const TOKENS: &str = r#"[
    {"name": "root", "token": "0123456789abcdef0", "role": "admin"},
    {"name": "alice", "token": "0123456789abcdef1", "role": "member", "project": "p1"},
    {"name": "late", "token": "0123456789abcdef2", "role": "admin", "expires_ms": 1},
    {"name": "new", "token": "0123456789abcdef3", "role": "join"}
]"#;

const QUOTAS: &str = r#"{"default": {}, "projects": {"p1": {"tray": 67108864}}}"#;

struct Rig {
    _directory: TempDir,
    _controller: Process,
    address: String,
    metrics: String,
    generation: u64,
}

impl Rig {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let (rack, tokens) = (write("rack.toml", RACK), write("tokens.json", TOKENS));
        let quotas = write("quotas.json", QUOTAS);
        let (address, metrics) = (free_address(), free_address());
        let mut command = Command::new(rackmem());
        command.args(["controller", "--listen", &address, "--metrics", &metrics]);
        command.arg("--state").arg(directory.path().join("state")).arg("--rack").arg(rack);
        command.arg("--tokens").arg(tokens).arg("--quotas").arg(quotas);
        let mut controller = Process::start(&mut command, LIMIT);
        controller.expect_line(&format!("controller: on {address}, metrics on {metrics}"));
        let rig = Self { _directory: directory, _controller: controller, address, metrics, generation: 0 };
        let (_, view) = rig.get("/v1/controller");
        Self { generation: view["generation"].as_u64().unwrap(), ..rig }
    }

    /// Asks as the owner of the token whose last character this is.
    fn ask(&self, token: char, method: &str, path: &str, body: &str) -> (u16, Value) {
        let headers = format!(
            "authorization: Bearer 0123456789abcdef{token}\r\nrackmem-generation: {}\r\ncontent-type: application/json\r\n",
            self.generation
        );
        self.ask_with(&headers, method, path, body)
    }

    fn ask_with(&self, headers: &str, method: &str, path: &str, body: &str) -> (u16, Value) {
        let (status, text) = http(&self.address, headers, method, path, body);
        (status, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
    }

    fn get(&self, path: &str) -> (u16, Value) {
        self.ask('0', "GET", path, "")
    }

    /// It is refused with this status, and the problem says `why`.
    #[track_caller]
    fn refused(&self, (token, method, path, body): (char, &str, &str, &str), status: u16, why: &str) {
        let (answered, problem) = self.ask(token, method, path, body);
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(answered == status && detail.contains(why), "{method} {path} {body}: {answered} {problem}");
        assert_eq!(problem["status"], status);
    }

    /// What is asked for is accepted, and fails with this status.
    #[track_caller]
    fn fails(&self, token: char, method: &str, path: &str, body: &str, status: u16) -> Value {
        let (accepted, operation) = self.ask(token, method, path, body);
        assert_eq!(accepted, 202, "{operation}");
        let id = operation["id"].as_str().unwrap().to_owned();
        let (_, ended) = self.get(&format!("/v1/operations/{id}/wait?timeout=30"));
        assert_eq!(
            (&ended["state"], &ended["error"]["status"]),
            (&"failed".into(), &status.into()),
            "{ended}"
        );
        ended
    }
}

/// A status and a body.
fn http(address: &str, headers: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let len = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: rack\r\nconnection: close\r\n{headers}content-length: {len}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    (status, body.to_owned())
}

const BRICK: &str = r#"{"name":"NAME","tray":"t1","ports":1,"offers":{"kind":"memory","size":1073741824},"cables":[{"port":0,"to":"TO","latency_ns":100,"mbps":10000}]}"#;

fn brick(name: &str, to: &str) -> String {
    BRICK.replace("NAME", name).replace("TO", to)
}

#[test]
fn bricks_and_cables_that_cannot_be() {
    let rig = Rig::new();
    rig.refused(('0', "GET", "/v1/bricks/m9", ""), 404, "m9");
    rig.refused(('0', "DELETE", "/v1/bricks/m9", ""), 404, "m9");
    rig.refused(('0', "POST", "/v1/bricks", &brick("m1", "s1:3")), 409, "m1");
    rig.refused(('0', "POST", "/v1/bricks", &brick("m9", "s1:0")), 409, "s1:0");
    rig.refused(('0', "POST", "/v1/bricks", &brick("m9", "s9:0")), 404, "s9");
    rig.refused(('0', "POST", "/v1/bricks", &brick("m 9", "s1:3")), 422, "m 9");
    let at = |address: &str| {
        let mut new: Value = serde_json::from_str(&brick("m9", "s1:3")).unwrap();
        new["address"] = address.into();
        new.to_string()
    };
    for address in ["not an address", "", "http://m9:7070"] {
        rig.refused(('0', "POST", "/v1/bricks", &at(address)), 422, "HOST:PORT, unix:PATH or shm:PATH");
    }
    rig.refused(('0', "POST", "/v1/bricks", &at("127.0.0.1:1\r\nX: y")), 422, "control characters");
    rig.refused(('0', "POST", "/v1/bricks", &at(&format!("{}:1", "m".repeat(200_000)))), 422, "at most");
    let agent = r#"{"name":"c9","tray":"t1","ports":1,"offers":{"kind":"compute","cores":1,"local":4096},"address":"shm:/etc/passwd"}"#;
    rig.refused(('0', "POST", "/v1/bricks", agent), 422, "https://HOST:PORT");
    rig.refused(('0', "POST", "/v1/racks", r##"{"file":"# nothing\n"}"##), 422, "registers nothing");
    let file = r#"{"file":"[[rack]]\nname = 7\n"}"#;
    rig.refused(('0', "POST", "/v1/racks", file), 422, "line 2, column 8");
    let file = r#"{"file":"rack = [{ name = \"r2\" }]\n[[switch]]\nname = \"s2\"\nrack = \"r2\"\nkind = \"circuit\"\nports = 2\naddress = \"ovs:br0\"\n"}"#;
    rig.refused(('0', "POST", "/v1/racks", file), 422, "line 7, column 11: 's2' cannot be asked");
    rig.refused(('0', "GET", "/v1/nothing", ""), 404, "openapi.json");
    rig.refused(('0', "PUT", "/v1/bricks", ""), 405, "method");
    assert_eq!(rig.get("/v1/bricks").1.as_array().unwrap().len(), 3, "nothing is half done");
}

#[test]
fn requests_that_cannot_be_read() {
    let rig = Rig::new();
    rig.refused(('0', "POST", "/v1/reservations", r#"{"memory": 4096,"#), 400, "");
    rig.refused(('0', "POST", "/v1/reservations", r#"{"memory": 4096, "class": "near"}"#), 422, "class");
    rig.refused(('0', "POST", "/v1/reservations", r#"{"memory": -1, "class": "tray"}"#), 422, "memory");
    rig.refused(('0', "POST", "/v1/reservations", r#"{"memory": 4096, "class": "tray", "x": 1}"#), 422, "x");
    let token = "authorization: Bearer 0123456789abcdef0\r\ncontent-type: application/json\r\n";
    let body = r#"{"memory": 4096, "class": "tray"}"#;
    let (status, problem) = rig.ask_with(token, "POST", "/v1/reservations", body);
    assert_eq!(status, 428, "{problem}");
    let older = format!("{token}rackmem-generation: {}\r\n", rig.generation - 1);
    let (status, problem) = rig.ask_with(&older, "POST", "/v1/reservations", body);
    assert_eq!((status, &problem["generation"]), (412, &rig.generation.into()), "{problem}");
    assert_eq!(rig.get("/v1/reservations").1.as_array().unwrap().len(), 0);
}

#[test]
fn who_may_not() {
    let rig = Rig::new();
    let (status, problem) = rig.ask_with("", "GET", "/v1/bricks", "");
    assert_eq!(status, 401, "{problem}");
    rig.refused(('9', "GET", "/v1/bricks", ""), 401, "wrong");
    rig.refused(('2', "GET", "/v1/bricks", ""), 401, "expired");
    rig.refused(('3', "GET", "/v1/bricks", ""), 403, "too small");
    rig.refused(('1', "DELETE", "/v1/bricks/c2", ""), 403, "too small");
    rig.refused(('1', "GET", "/metrics", ""), 403, "");
    let other = r#"{"memory": 4096, "class": "tray", "project": "p2"}"#;
    rig.refused(('1', "POST", "/v1/reservations", other), 403, "p2");
    let machine =
        r#"{"name": "w1", "memory": 67108864, "class": "tray", "boot": {"kernel": "/boot/vmlinuz"}}"#;
    rig.refused(('1', "POST", "/v1/vms", machine), 403, "--images DIRECTORY");
    let (status, text) = http(&rig.metrics, "", "GET", "/metrics", "");
    assert!(status == 200 && text.contains("rackmem_controller_brick_capacity{brick=\"m1\"}"), "{text}");
    assert_eq!(http(&rig.metrics, "", "GET", "/v1/bricks", "").0, 404);
}

#[test]
fn reservations_that_cannot_be_met() {
    let rig = Rig::new();
    let new = |compute: &str, memory: u64, more: &str| {
        format!(r#"{{"compute":"{compute}","memory":{memory},"class":"tray"{more}}}"#)
    };
    rig.refused(('0', "POST", "/v1/reservations", &new("c9", 4096, "")), 404, "c9");
    rig.refused(('0', "POST", "/v1/reservations", &new("c1", 0, "")), 422, "asks for nothing");
    rig.refused(('0', "GET", "/v1/reservations/7", ""), 404, "7");
    rig.refused(('0', "POST", "/v1/reservations/7/apply", ""), 404, "7");
    rig.refused(('0', "DELETE", "/v1/reservations/7", ""), 404, "7");
    // A class that cannot be met is explained brick by brick.
    let failed = rig.fails('0', "POST", "/v1/reservations", &new("c1", 1 << 40, ""), 409);
    let (status, why) = rig.get(&format!("/v1/operations/{}/why", failed["id"].as_str().unwrap()));
    let bricks: Vec<_> =
        why.as_array().unwrap().iter().map(|reason| reason["brick"].as_str().unwrap()).collect();
    assert_eq!((status, bricks.contains(&"m1"), bricks.contains(&"c1")), (200, true, true), "{why}");
    // A quota.
    let failed = rig.fails('1', "POST", "/v1/reservations", &new("c1", 128 << 20, ""), 409);
    assert!(failed["error"]["detail"].as_str().unwrap().contains("'p1' may have 64MiB"), "{failed}");
    // One that expires.
    let held = new("c2", 4096, r#","apply":false,"expires_s":1"#);
    let (status, operation) = rig.ask('0', "POST", "/v1/reservations", &held);
    assert_eq!(status, 202);
    let id = operation["target"].as_str().unwrap();
    rig.get(&format!("/v1/operations/{}/wait?timeout=30", operation["id"].as_str().unwrap()));
    rig.refused(('0', "DELETE", "/v1/bricks/c2", ""), 409, &format!("reservation {id}"));
    std::thread::sleep(Duration::from_millis(2500));
    rig.refused(('0', "POST", &format!("/v1/reservations/{id}/apply"), ""), 404, "expired");
    // Keys.
    let token = format!(
        "authorization: Bearer 0123456789abcdef0\r\ncontent-type: application/json\r\nrackmem-generation: {}\r\nidempotency-key: k1\r\n",
        rig.generation
    );
    let body = |memory| new("c2", memory, r#","apply":false"#);
    let (status, first) = rig.ask_with(&token, "POST", "/v1/reservations", &body(4096));
    let (again, same) = rig.ask_with(&token, "POST", "/v1/reservations", &body(4096));
    assert_eq!((status, again, &first["id"]), (202, 202, &same["id"]));
    assert_eq!(rig.ask_with(&token, "POST", "/v1/reservations", &body(8192)).0, 422);
}

/// Nobody listens where the agent should: once that is noticed, nothing is placed there, and it is said why.
#[test]
fn an_agent_that_cannot_be_reached() {
    let rig = Rig::new();
    let begun = std::time::Instant::now();
    while rig.get("/v1/bricks/c1").1["reachable"] == true {
        assert!(begun.elapsed() < Duration::from_secs(20), "nobody noticed");
        std::thread::sleep(Duration::from_millis(20));
    }
    let body = r#"{"compute":"c1","memory":4096,"class":"tray"}"#;
    let failed = rig.fails('0', "POST", "/v1/reservations", body, 409);
    let (_, why) = rig.get(&format!("/v1/operations/{}/why", failed["id"].as_str().unwrap()));
    let told = why.as_array().unwrap().iter().find(|reason| reason["brick"] == "c1").unwrap();
    assert!(told["why"].as_str().unwrap().contains("answer"), "{told}");
}
