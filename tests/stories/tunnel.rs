//! kubectl's ways into a pod, on a machine that nothing can dial: logs, exec, attach, cp, port-forward and the node's proxy all
//! go backwards through the agent's link.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::world::{World, ok, text, until};

/// Larger than any window on the way, and no two parts of it alike.
const FREIGHT: usize = 3 << 20;

/// All of them, with a pod of the story's own on this node.
pub fn reaches(world: &World, kubeconfig: &Path, node: &str) {
    let pod = format!("way-{node}");
    world.sleeper(
        kubeconfig,
        &pod,
        (json!({ "nodeName": node }), json!({ "stdin": true, "command": ["sh", "-c", "echo begun; exec cat"] })),
    );
    let kubectl = |words: &[&str]| world.kubectl(kubeconfig, words);
    // A container runs a moment before kubelet calls it running, and only then gives its log.
    until("the container's log", || {
        let output = kubectl(&["logs", &pod]).output().unwrap();
        let said = text(&output.stdout);
        if said.starts_with("begun\n") { Ok(()) } else { Err(said + text(&output.stderr).as_str()) }
    });
    let echoed = talk(kubectl(&["exec", "-i", &pod, "--", "tr", "a-z", "A-Z"]), "through exec\n");
    assert_eq!(echoed, "THROUGH EXEC\n");
    attach(kubectl(&["attach", "-q", "-i", &pod]), "through attach\n");
    copy(world, kubeconfig, &pod);
    let raw = format!("/api/v1/nodes/{node}/proxy/healthz");
    assert_eq!(ok(&mut kubectl(&["get", "--raw", &raw])), "ok");
    ok(&mut kubectl(&["delete", "pod", &pod, "--wait=true"]));
}

/// Says one line, ends the input, and gives all of the output.
fn talk(mut command: Command, line: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Ends a kubectl that would go on for ever, also when the story fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn attach(mut command: Command, line: &str) {
    let mut child = Ended(command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap());
    let mut input = child.0.stdin.take().unwrap();
    let mut output = BufReader::new(child.0.stdout.take().unwrap()).lines();
    input.write_all(line.as_bytes()).unwrap();
    let heard = output.find(|heard| heard.as_ref().is_ok_and(|heard| heard == line.trim_end()));
    assert!(heard.is_some(), "the container's cat never said it");
}

fn copy(world: &World, kubeconfig: &Path, pod: &str) {
    let (there, back) = (world.scratch.at("there"), world.scratch.at("back"));
    let freight: Vec<u8> =
        (0..FREIGHT / 8).flat_map(|place| place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect();
    std::fs::write(&there, &freight).unwrap();
    let place = format!("{pod}:/tmp/freight");
    ok(&mut world.kubectl(kubeconfig, &["cp", there.to_str().unwrap(), &place]));
    ok(&mut world.kubectl(kubeconfig, &["cp", "--retries=3", &place, back.to_str().unwrap()]));
    assert!(std::fs::read(&back).unwrap() == freight, "the file came back changed");
}

/// CoreDNS answers its health check through a forwarded port.
pub fn forwards(world: &World, kubeconfig: &Path, pod: &str) {
    let words = ["port-forward", "-n", "kube-system", pod, ":8080"];
    let mut forward = Ended(world.kubectl(kubeconfig, &words).stdout(Stdio::piped()).spawn().unwrap());
    // Kept open: kubectl goes on printing, and would end at a closed pipe.
    let mut output = BufReader::new(forward.0.stdout.take().unwrap());
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    let port = line.split(':').nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u16>().ok());
    let answer = until("an answer through the port", || {
        let answer = ask(port.unwrap_or_else(|| panic!("no port: {line}")));
        if answer.contains("200 OK") && answer.ends_with("OK") { Ok(answer) } else { Err(answer) }
    });
    assert!(answer.starts_with("HTTP/1.0 200 OK"), "{answer}");
}

fn ask(port: u16) -> String {
    let mut answer = Vec::new();
    if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) {
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").ok();
        // kubectl may end the local connection with a reset once the answer is through: what was read counts.
        let mut buffer = [0; 512];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            answer.extend_from_slice(&buffer[..length]);
        }
    }
    text(&answer)
}
