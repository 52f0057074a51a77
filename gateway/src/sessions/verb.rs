//! What a request wants to do. Every route and every use of SSH has one verb, and a verb says whom it is for.

/// An operation, by its name in the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    WhoAmI,
    ListVms,
    Info,
    Start,
    ReadFile,
    WriteFile,
    WatchFiles,
    Exec,
    Services,
    Terminals,
    Ssh,
    Shell,
    Sftp,
    Forward,
    CreateVm,
    RegisterVm,
    DeleteVm,
    StopVm,
    SuspendVm,
    KillVm,
    AwaitVm,
    ResizeVm,
    OptimizeVm,
    ForkVm,
    SnapshotVm,
    Snapshots,
    Identities,
    Tokens,
    SshKeys,
    Grants,
    ReadAudit,
    ReadMetrics,
}

/// Whom a verb is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Anybody with a credential, about what is theirs.
    Own,
    /// The admin alone.
    Admin,
    /// Whoever was granted the VM; no Linux user is involved.
    Vm,
    /// Whoever was granted the VM as that Linux user.
    VmAsUser,
}

impl Verb {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 32] = [
        Self::WhoAmI,
        Self::ListVms,
        Self::Info,
        Self::Start,
        Self::ReadFile,
        Self::WriteFile,
        Self::WatchFiles,
        Self::Exec,
        Self::Services,
        Self::Terminals,
        Self::Ssh,
        Self::Shell,
        Self::Sftp,
        Self::Forward,
        Self::CreateVm,
        Self::RegisterVm,
        Self::DeleteVm,
        Self::StopVm,
        Self::SuspendVm,
        Self::KillVm,
        Self::AwaitVm,
        Self::ResizeVm,
        Self::OptimizeVm,
        Self::ForkVm,
        Self::SnapshotVm,
        Self::Snapshots,
        Self::Identities,
        Self::Tokens,
        Self::SshKeys,
        Self::Grants,
        Self::ReadAudit,
        Self::ReadMetrics,
    ];

    pub(crate) fn reach(self) -> Reach {
        match self {
            Self::WhoAmI | Self::ListVms => Reach::Own,
            Self::Info | Self::Start => Reach::Vm,
            Self::ReadFile
            | Self::WriteFile
            | Self::WatchFiles
            | Self::Exec
            | Self::Services
            | Self::Terminals
            | Self::Ssh
            | Self::Shell
            | Self::Sftp
            | Self::Forward => Reach::VmAsUser,
            Self::CreateVm
            | Self::RegisterVm
            | Self::DeleteVm
            | Self::StopVm
            | Self::SuspendVm
            | Self::KillVm
            | Self::AwaitVm
            | Self::ResizeVm
            | Self::OptimizeVm
            | Self::ForkVm
            | Self::SnapshotVm
            | Self::Snapshots
            | Self::Identities
            | Self::Tokens
            | Self::SshKeys
            | Self::Grants
            | Self::ReadAudit
            | Self::ReadMetrics => Reach::Admin,
        }
    }

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::WhoAmI => "whoami",
            Self::ListVms => "list-vms",
            Self::Info => "info",
            Self::Start => "start",
            Self::ReadFile => "read-file",
            Self::WriteFile => "write-file",
            Self::WatchFiles => "watch-files",
            Self::Exec => "exec",
            Self::Services => "services",
            Self::Terminals => "terminals",
            Self::Ssh => "ssh",
            Self::Shell => "shell",
            Self::Sftp => "sftp",
            Self::Forward => "forward",
            Self::CreateVm => "create-vm",
            Self::RegisterVm => "register-vm",
            Self::DeleteVm => "delete-vm",
            Self::StopVm => "stop-vm",
            Self::SuspendVm => "suspend-vm",
            Self::KillVm => "kill-vm",
            Self::AwaitVm => "await-vm",
            Self::ResizeVm => "resize-vm",
            Self::OptimizeVm => "optimize-vm",
            Self::ForkVm => "fork-vm",
            Self::SnapshotVm => "snapshot-vm",
            Self::Snapshots => "snapshots",
            Self::Identities => "identities",
            Self::Tokens => "tokens",
            Self::SshKeys => "ssh-keys",
            Self::Grants => "grants",
            Self::ReadAudit => "read-audit",
            Self::ReadMetrics => "read-metrics",
        }
    }
}
