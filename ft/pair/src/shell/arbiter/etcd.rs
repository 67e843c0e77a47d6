//! The register in an etcd, through the JSON gateway that every etcd since 3.4 has (etcd manual, "Why gRPC gateway").
//!
//! Not responsible for: the cluster, its certificates (plain HTTP: a network that is yours, or a local proxy).
//!
//! Each epoch is a key, made by a transaction that demands that the key has no revision yet. Nothing here expires: there is no lease,
//! so an etcd that is away takes nothing from anybody.

use super::{Arbiter, step};
use crate::protocol::{Changed, Membership};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use ureq::Agent;

/// An endpoint that does not answer for so long is left for the next.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer: a register's content is a few hundred bytes.
const LONGEST: u64 = 1 << 20;

/// An etcd cluster.
pub struct EtcdArbiter {
    endpoints: Vec<String>,
    agent: Agent,
}

impl EtcdArbiter {
    /// An arbiter in the cluster with these members, each as `http://HOST:PORT`.
    pub fn new(endpoints: Vec<String>) -> Self {
        let agent = Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
        Self { endpoints, agent }
    }

    /// Asks one member after the other, until one answers.
    fn ask(&self, path: &str, question: &Value) -> io::Result<Value> {
        let mut trouble = io::Error::new(io::ErrorKind::NotConnected, "no endpoint");
        for endpoint in &self.endpoints {
            match self.ask_at(&format!("{endpoint}/v3/kv/{path}"), question) {
                Ok(answer) => return Ok(answer),
                Err(e) => trouble = e,
            }
        }
        Err(trouble)
    }

    fn ask_at(&self, url: &str, question: &Value) -> io::Result<Value> {
        let request = self.agent.post(url).header("content-type", "application/json");
        let mut answer = request.send(question.to_string()).map_err(io::Error::other)?;
        let body = answer.body_mut().with_config().limit(LONGEST).read_to_vec().map_err(io::Error::other)?;
        Ok(serde_json::from_slice(&body)?)
    }
}

/// The keys of a VM begin with this. A VM's name has no slash.
fn prefix(vm: &str) -> String {
    format!("gemel/{vm}/")
}

/// Keys in the order of their epochs.
fn key(vm: &str, epoch: u64) -> String {
    BASE64.encode(format!("{}{epoch:020}", prefix(vm)))
}

impl Arbiter for EtcdArbiter {
    fn read(&self, vm: &str) -> io::Result<Option<Membership>> {
        let prefix = prefix(vm);
        // The first key behind all that begin so: '0' follows '/'.
        let behind = format!("{}0", prefix.trim_end_matches('/'));
        let answer = self.ask(
            "range",
            &json!({
                "key": BASE64.encode(&prefix),
                "range_end": BASE64.encode(behind),
                "sort_target": "KEY",
                "sort_order": "DESCEND",
                "limit": "1",
            }),
        )?;
        // An empty answer leaves `kvs` out; one that is no answer lacks the header as well.
        let Some(value) = answer.pointer("/kvs/0/value") else {
            return if answer.get("header").is_some() { Ok(None) } else { Err(nonsense()) };
        };
        let content = value.as_str().and_then(|v| BASE64.decode(v).ok()).ok_or_else(nonsense)?;
        Ok(Some(serde_json::from_slice(&content)?))
    }

    fn change(&self, vm: &str, next: &Membership) -> io::Result<Changed> {
        let key = key(vm, next.epoch);
        let content = BASE64.encode(serde_json::to_vec(next)?);
        let make = || {
            let answer = self.ask(
                "txn",
                &json!({
                    "compare": [{ "key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0" }],
                    "success": [{ "request_put": { "key": key, "value": content } }],
                }),
            )?;
            if answer.get("header").is_none() {
                return Err(nonsense());
            }
            // As all of protobuf's defaults, `false` is left out.
            Ok(answer.get("succeeded").and_then(Value::as_bool).unwrap_or(false))
        };
        step(next, || self.read(vm), make)
    }
}

fn nonsense() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what answers there is no etcd's gateway")
}
