//! `guestline ports`.

use guestline_client::{Port, PortAddress, Vm};
use serde_json::{Map, Value, json};

use super::{
    Outcome,
    failure::Trying,
    info::Arguments,
    output::{print, print_json, printable, printable_path, put_bytes},
};

pub(super) async fn run(arguments: Arguments, vm: &Vm) -> Outcome {
    let ports = vm.network().ports().await;
    let mut ports = ports.trying_to("list the ports", vm)?;
    ports.sort_by_key(|port| match &port.address {
        PortAddress::Unix(path) => (None, Some(path.clone())),
        PortAddress::Tcp(address) => (Some((address.port(), address.ip())), None),
        _ => (None, None),
    });
    if arguments.json {
        print_json(&ports.iter().map(document).collect())?;
        return Ok(0);
    }
    print(ports.iter().map(line).collect::<String>().as_bytes()).map(|()| 0)
}

fn line(port: &Port) -> String {
    let address = match &port.address {
        PortAddress::Tcp(address) => address.to_string(),
        PortAddress::Unix(path) => printable_path(path),
        _ => "?".into(),
    };
    let or_unknown = |number: Option<String>| number.unwrap_or_else(|| "-".into());
    let uid = or_unknown(port.uid.map(|uid| uid.to_string()));
    let pid = or_unknown(port.pid.map(|pid| pid.to_string()));
    let program = printable(port.program.as_encoded_bytes());
    format!("{uid:>6} {pid:>7} {program:<15} {address}\n")
}

fn document(port: &Port) -> Value {
    let mut object = Map::new();
    match &port.address {
        PortAddress::Tcp(address) => {
            object.insert("protocol".into(), json!("tcp"));
            object.insert("address".into(), json!(address.ip()));
            object.insert("port".into(), json!(address.port()));
        }
        PortAddress::Unix(path) => {
            object.insert("protocol".into(), json!("unix"));
            put_bytes(&mut object, "path", path.as_os_str());
        }
        _ => {}
    }
    object.insert("uid".into(), json!(port.uid));
    object.insert("pid".into(), json!(port.pid));
    if port.pid.is_some() {
        put_bytes(&mut object, "program", &port.program);
    }
    object.into()
}
