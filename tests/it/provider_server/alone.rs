//! The server as a program of its own: for whoever plays its cases through other programs.

use std::io::{self, BufRead, Write};

use serde_json::{Value, json};

use super::ProviderServer;
use super::script::FAULTS;

fn tell(told: &Value) {
    writeln!(io::stdout(), "{told}").unwrap();
}

/// All that was asked so far, in its order, and what each was billed.
fn record(server: &ProviderServer) -> Value {
    let bills = server.bills();
    let requests = server.requests();
    let asked = requests.iter().filter(|one| one.method == "POST");
    let told = asked.map(|one| {
        let bill = one.generation.as_ref().and_then(|id| bills.get(id));
        json!({
            "model": one.model(),
            "messages": one.body["messages"],
            "billed_tokens": bill.map(|bill| bill.completion_tokens),
            "billed_micro_usd": bill.map(|bill| bill.micro_usd),
        })
    });
    json!({"asked": told.collect::<Vec<_>>()})
}

#[test]
#[ignore = "serves until its input ends: benches/faults.py starts it"]
fn serves_until_its_input_ends() {
    let server = ProviderServer::start();
    tell(&json!({"url": format!("http://{}", server.address()), "faults": FAULTS}));
    // Each line asks for the record.
    for _ in io::stdin().lock().lines().map_while(Result::ok) {
        tell(&record(&server));
    }
}
