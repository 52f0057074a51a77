//! A service as the SDK describes it, made into a unit file (systemd.service(5)).

use std::{collections::BTreeMap, fmt::Write};

use guestline_client::CreateService;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::http::error::{ApiError, Code};

/// systemd's own bound on a unit's name is 255 bytes with its suffix.
const MAX_NAME: usize = 200;

/// A systemd service.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(in crate::http) struct ServiceSpec {
    name: String,
    /// oneshot or service.
    mode: String,
    /// Command lines as systemd takes them, run one after another.
    exec: Vec<String>,
    #[serde(default)]
    env: Option<BTreeMap<String, String>>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    group: Option<String>,
    #[serde(default)]
    workdir: Option<String>,
    #[serde(default)]
    after: Option<Vec<String>>,
    #[serde(default)]
    requires: Option<Vec<String>>,
    #[serde(default)]
    on_failure: Option<Vec<String>>,
    #[serde(default)]
    wanted_by: Option<Vec<String>>,
    #[serde(default)]
    enable: Option<bool>,
    #[serde(default)]
    timeout_sec: Option<f64>,
    #[serde(default)]
    remain_after_exit: Option<bool>,
    #[serde(default)]
    ready_signal: Option<bool>,
    #[serde(default)]
    watchdog_sec: Option<f64>,
    #[serde(default)]
    restart_policy: Option<RestartPolicy>,
    #[serde(default)]
    delete_after_success: Option<bool>,
}

/// When it is started again.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct RestartPolicy {
    /// no, on-failure, always or on-abnormal.
    policy: String,
    #[serde(default)]
    restart_sec: Option<f64>,
    #[serde(default)]
    start_limit_burst: Option<f64>,
    #[serde(default)]
    start_limit_interval_sec: Option<f64>,
}

impl ServiceSpec {
    /// Without `.service`.
    pub(in crate::http) fn name(&self) -> &str {
        plain(&self.name)
    }

    /// It is to be removed when it has run; for a service that goes on that says nothing.
    pub(in crate::http) fn is_for_once(&self) -> bool {
        self.mode == "oneshot" && self.delete_after_success.unwrap_or_default()
    }

    /// Checked: what would not be one line of a unit file is refused, because its second line could say anything.
    pub(in crate::http) fn to_service(&self) -> Result<CreateService, ApiError> {
        self.to_service_among(&[])
    }

    /// The same among others that only have to run once and are removed then: to require one of them is to want it. A
    /// requirement would end this service when that one goes, and keep it from starting at the next boot.
    pub(in crate::http) fn to_service_among(
        &self,
        once: &[String],
    ) -> Result<CreateService, ApiError> {
        let name = plain(&self.name);
        check_name(name)?;
        if self.exec.is_empty() || self.exec.iter().any(|line| line.trim().is_empty()) {
            return Err(ApiError::new(
                Code::ExecEmpty,
                format!("{name}: exec has no command, or an empty one"),
            ));
        }
        let mut unit = Unit::default();
        unit.section("Unit");
        unit.line("Description", name)?;
        unit.list("After", &self.after, Code::AfterContainsEmpty)?;
        let of_once = |name: &String| once.contains(&plain(name).to_owned());
        let (wants, requires): (Vec<String>, Vec<String>) =
            self.requires.iter().flatten().cloned().partition(of_once);
        unit.list("Requires", &Some(requires), Code::RequiresContainsEmpty)?;
        unit.list("Wants", &Some(wants), Code::RequiresContainsEmpty)?;
        unit.list("OnFailure", &self.on_failure, Code::OnFailureContainsEmpty)?;
        if let Some(restart) = &self.restart_policy {
            unit.number("StartLimitBurst", restart.start_limit_burst)?;
            unit.number("StartLimitIntervalSec", restart.start_limit_interval_sec)?;
        }
        unit.section("Service");
        self.write_service(&mut unit)?;
        unit.section("Install");
        match &self.wanted_by {
            Some(_) => unit.list("WantedBy", &self.wanted_by, Code::WantedByEmpty)?,
            None => unit.line("WantedBy", "multi-user.target")?,
        }
        Ok(CreateService {
            name: name.into(),
            unit: unit.text,
            enable: self.enable.unwrap_or(true),
            start: true,
        })
    }

    fn write_service(&self, unit: &mut Unit) -> Result<(), ApiError> {
        let oneshot = match self.mode.as_str() {
            "oneshot" => true,
            "service" => false,
            other => {
                return Err(wrong(format!(
                    "mode: {other:?} is neither oneshot nor service"
                )));
            }
        };
        match (oneshot, self.ready_signal.unwrap_or_default()) {
            (true, _) => unit.line("Type", "oneshot")?,
            (false, true) => unit.line("Type", "notify")?,
            (false, false) => unit.line("Type", "exec")?,
        }
        if oneshot {
            let remain = self.remain_after_exit.unwrap_or(true);
            unit.line("RemainAfterExit", if remain { "yes" } else { "no" })?;
        }
        // Only a oneshot may have several of ExecStart=.
        let last = self.exec.len() - 1;
        for (at, line) in self.exec.iter().enumerate() {
            let key = if oneshot || at == last {
                "ExecStart"
            } else {
                "ExecStartPre"
            };
            unit.line(key, line)?;
        }
        for (name, value) in self.env.iter().flatten() {
            check_variable(name)?;
            unit.line("Environment", &quoted(&format!("{name}={value}")))?;
        }
        for (key, value, empty) in [
            ("User", &self.user, Code::UserEmpty),
            ("Group", &self.group, Code::GroupEmpty),
            ("WorkingDirectory", &self.workdir, Code::WorkdirEmpty),
        ] {
            match value.as_deref() {
                None => {}
                Some("") => return Err(ApiError::new(empty, format!("{key}: it is empty"))),
                Some(value) => unit.line(key, value)?,
            }
        }
        unit.number("TimeoutStartSec", self.timeout_sec)?;
        unit.number("WatchdogSec", self.watchdog_sec)?;
        if let Some(restart) = &self.restart_policy {
            if !["no", "on-failure", "always", "on-abnormal"].contains(&restart.policy.as_str()) {
                return Err(wrong(format!(
                    "restartPolicy: {:?} is none",
                    restart.policy
                )));
            }
            unit.line("Restart", &restart.policy)?;
            unit.number("RestartSec", restart.restart_sec)?;
        }
        Ok(())
    }
}

/// A unit file, line by line.
#[derive(Default)]
struct Unit {
    text: String,
}

impl Unit {
    fn section(&mut self, name: &str) {
        let _ = writeln!(self.text, "[{name}]");
    }

    fn line(&mut self, key: &str, value: &str) -> Result<(), ApiError> {
        // A backslash at the end would join the next line.
        if value.contains(['\n', '\r', '\0']) || value.ends_with('\\') {
            return Err(wrong(format!("{key}: a value is one line")));
        }
        let _ = writeln!(self.text, "{key}={value}");
        Ok(())
    }

    /// `empty` is how a name that is none is called.
    fn list(
        &mut self,
        key: &str,
        names: &Option<Vec<String>>,
        empty: Code,
    ) -> Result<(), ApiError> {
        for name in names.iter().flatten() {
            if name.is_empty() {
                return Err(ApiError::new(empty, format!("{key}: a name is empty")));
            }
            if name.contains(char::is_whitespace) {
                return Err(wrong(format!("{key}: {name:?} is no unit's name")));
            }
            self.line(key, name)?;
        }
        Ok(())
    }

    fn number(&mut self, key: &str, number: Option<f64>) -> Result<(), ApiError> {
        match number {
            Some(number) if number.is_finite() && number >= 0.0 => {
                self.line(key, &number.to_string())
            }
            Some(number) => Err(wrong(format!("{key}: {number} is negative"))),
            None => Ok(()),
        }
    }
}

fn plain(name: &str) -> &str {
    name.strip_suffix(".service").unwrap_or(name)
}

fn check_name(name: &str) -> Result<(), ApiError> {
    let code = match name {
        "" => Code::ServiceNameEmpty,
        _ if name.starts_with(['.', '-']) => Code::ServiceNameInvalidPrefix,
        _ if name.len() > MAX_NAME => Code::ServiceNameTooLong,
        _ if name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.@:".contains(c)) =>
        {
            return Ok(());
        }
        _ => Code::ServiceNameInvalidChars,
    };
    Err(ApiError::new(
        code,
        format!("{name:?} cannot be a service's name"),
    ))
}

fn check_variable(name: &str) -> Result<(), ApiError> {
    let code = match name {
        "" => Code::EnvKeyEmpty,
        _ if name.contains('=') => Code::EnvKeyContainsEquals,
        _ => return Ok(()),
    };
    Err(ApiError::new(
        code,
        format!("env: {name:?} cannot be a variable's name"),
    ))
}

/// For Environment=: quotes and backslashes are escaped, and `%` is no specifier.
fn quoted(text: &str) -> String {
    let escaped = text
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    format!("\"{escaped}\"")
}

fn wrong(text: String) -> ApiError {
    ApiError::new(Code::ValidationError, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn service(change: impl FnOnce(&mut Value)) -> Result<CreateService, Code> {
        let mut spec = json!({"name": "web", "mode": "service", "exec": ["/bin/true", "/usr/bin/web --port 80"]});
        change(&mut spec);
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        spec.to_service().map_err(|error| error.code())
    }

    #[test]
    fn a_service_becomes_a_unit_file() {
        let made = service(|spec| {
            spec["env"] = json!({"A": "x \"y\" 100%"});
            spec["user"] = json!("alice");
            spec["after"] = json!(["network.target"]);
            spec["restartPolicy"] = json!({"policy": "always", "restartSec": 1.5});
        })
        .unwrap();
        let expected = "[Unit]\nDescription=web\nAfter=network.target\n[Service]\nType=exec\nExecStartPre=/bin/true\n\
             ExecStart=/usr/bin/web --port 80\nEnvironment=\"A=x \\\"y\\\" 100%%\"\nUser=alice\nRestart=always\nRestartSec=1.5\n\
             [Install]\nWantedBy=multi-user.target\n";
        assert_eq!((made.name.as_str(), made.unit.as_str()), ("web", expected));
    }

    #[test]
    fn to_require_what_is_removed_after_its_run_is_to_want_it() {
        let spec =
            json!({"name": "b", "mode": "service", "exec": ["x"], "requires": ["a.service", "c"]});
        let spec: ServiceSpec = serde_json::from_value(spec).unwrap();
        let unit = spec.to_service_among(&["a".into()]).unwrap().unit;
        assert!(unit.contains("Requires=c\nWants=a.service\n"), "{unit}");
        let unit = spec.to_service().unwrap().unit;
        assert!(unit.contains("Requires=a.service\nRequires=c\n"), "{unit}");
    }

    #[test]
    fn what_would_be_more_than_one_line_is_refused() {
        for field in ["user", "workdir"] {
            let made = service(|spec| spec[field] = json!("x\nExecStart=/bin/evil"));
            assert_eq!(made.unwrap_err(), Code::ValidationError, "{field}");
        }
        assert_eq!(
            service(|spec| spec["exec"] = json!(["/bin/x \\"])).unwrap_err(),
            Code::ValidationError
        );
        assert_eq!(
            service(|spec| spec["env"] = json!({"A": "x\ny"})).unwrap_err(),
            Code::ValidationError
        );
    }

    #[test]
    fn what_is_wrong_has_the_contracts_code() {
        for (name, code) in [
            ("", Code::ServiceNameEmpty),
            ("../x", Code::ServiceNameInvalidPrefix),
            ("a/b", Code::ServiceNameInvalidChars),
        ] {
            assert_eq!(
                service(|spec| spec["name"] = json!(name)).unwrap_err(),
                code,
                "{name}"
            );
        }
        assert_eq!(
            service(|spec| spec["exec"] = json!([])).unwrap_err(),
            Code::ExecEmpty
        );
        assert_eq!(
            service(|spec| spec["env"] = json!({"": "x"})).unwrap_err(),
            Code::EnvKeyEmpty
        );
        assert_eq!(
            service(|spec| spec["after"] = json!([""])).unwrap_err(),
            Code::AfterContainsEmpty
        );
        assert_eq!(
            service(|spec| spec["user"] = json!("")).unwrap_err(),
            Code::UserEmpty
        );
        assert_eq!(
            service(|spec| spec["mode"] = json!("x")).unwrap_err(),
            Code::ValidationError
        );
    }
}
