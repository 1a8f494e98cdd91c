//! Keys that the existing tool's releases since 2013 wrote and that no question here has: what becomes of each.

use super::{Answers, Value};
use crate::deploy::questions::keys;

/// What becomes of a former key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Former {
    /// It is taken for this key, unless that is answered too.
    Renamed(&'static str),
    /// Its value says something about this key: see [`rename`].
    Converted(&'static str),
    /// It had a use that is another command's here; the operator is told.
    Elsewhere(&'static str),
    /// Nothing asks for it: drawn anew, found out, or a matter of the existing tool's inside.
    Unused,
}

const NFS_VERSION: &str = "OVEHOSTED_STORAGE/nfsVersion";
const STORAGE_TYPE: &str = "OVEHOSTED_STORAGE/storageType";
const FIREWALL_MANAGER: &str = "OVEHOSTED_NETWORK/firewallManager";
const NOTIFICATIONS: &str = "set it with hosted-engine --set-shared-config, for example email.smtp-server";

/// Keys that are no longer asked, each with what becomes of it.
const FORMER: &[(&str, Former)] = &[
    ("OVEHOSTED_CORE/tmuxProceed", Former::Renamed(keys::SCREEN_PROCEED)),
    ("OVEHOSTED_ENGINE/datacenterName", Former::Renamed(keys::DATACENTER)),
    ("OVEHOSTED_STORAGE/iSCSILunId", Former::Renamed(keys::LUN)),
    ("OVEHOSTED_STORAGE/GUID", Former::Renamed(keys::LUN)),
    (STORAGE_TYPE, Former::Converted(keys::DOMAIN_TYPE)),
    (NFS_VERSION, Former::Converted(keys::DOMAIN_TYPE)),
    (FIREWALL_MANAGER, Former::Converted(keys::OPEN_FIREWALL)),
    ("OVEHOSTED_NOTIF/smtpServer", Former::Elsewhere(NOTIFICATIONS)),
    ("OVEHOSTED_NOTIF/smtpPort", Former::Elsewhere(NOTIFICATIONS)),
    ("OVEHOSTED_NOTIF/sourceEmail", Former::Elsewhere(NOTIFICATIONS)),
    ("OVEHOSTED_NOTIF/destEmail", Former::Elsewhere(NOTIFICATIONS)),
    (
        "OVEHOSTED_CORE/restoreFromFile",
        Former::Elsewhere("restore the engine inside its VM after the deployment"),
    ),
];

/// Keys of the existing tool that nothing asks for, by their part before the slash.
const UNUSED: &[(&str, &[&str])] = &[
    (
        "OVEHOSTED_CORE",
        &[
            "additionalHostEnabled",
            "additionalHostReDeployment",
            "ansibleDeployment",
            "ansibleUserExtraVars",
            "answerFile",
            "checkRequirements",
            "deployProceed",
            "enableKeycloak",
            "etcAnswerFile",
            "forceIpProceed",
            "localVMDir",
            "memCheckRequirements",
            "miscReached",
            "nodeSetup",
            "pauseonRestore",
            "renewPKIonRestore",
            "rollbackProceed",
            "rollbackUpgrade",
            "skipTTYCheck",
            "tempDir",
            "upgradeProceed",
            "upgradingAppliance",
            "userAnswerFile",
        ],
    ),
    (
        "OVEHOSTED_ENGINE",
        &[
            "adminUsername",
            "allowGlusterReplicaOne",
            "clusterName",
            "enableHcGlusterService",
            "enableLibgfapi",
            "engineSetupTimeout",
            "forceCreateVG",
            "insecureSSL",
            "interactiveAdminPassword",
            "promptNonOperational",
            "temporaryCertificate",
        ],
    ),
    (
        "OVEHOSTED_FIRST_HOST",
        &["deployWithHE35Hosts", "fetchAnswer", "fqdn", "rootPassword", "skipSharedStorageAF", "sshdPort"],
    ),
    ("OVEHOSTED_HOST", &["rootPassword"]),
    (
        "OVEHOSTED_NETWORK",
        &[
            "allowInvalidBondModes",
            "firewalldServices",
            "firewalldSubst",
            "fqdnReverseValidation",
            "promptRequiredNetworks",
            "refuseDeployingWithNM",
            "sshdPort",
        ],
    ),
    ("OVEHOSTED_SANLOCK", &["lockspaceName", "serviceName"]),
    (
        "OVEHOSTED_STORAGE",
        &[
            "blockDeviceSizeGB",
            "brokerConfContent",
            "confImageDesc",
            "confImageSizeGB",
            "confImageUUID",
            "confVolUUID",
            "connectionUUID",
            "discardSupport",
            "fakeMasterSdConnUUID",
            "fakeMasterSdUUID",
            "glusterBrick",
            "glusterProvisionedShareName",
            "glusterProvisioningEnabled",
            "imgAlias",
            "imgDesc",
            "imgUUID",
            "lockspaceImageUUID",
            "lockspaceVolumeUUID",
            "metadataImageUUID",
            "metadataVolumeUUID",
            "ovfSizeGB",
            "qcowSizeGB",
            "spUUID",
            "storageAnswerFileContent",
            "storageHEConfContent",
            "vgUUID",
            "vmConfContent",
            "volUUID",
        ],
    ),
    (
        "OVEHOSTED_VDSM",
        &[
            "caSubject",
            "engineCpu",
            "glusterMinimumVersion",
            "kvmGid",
            "passwd",
            "passwdValiditySecs",
            "pkiSubject",
            "serviceName",
            "spicePkiSubject",
            "useSSL",
            "vdsClient",
            "vdscli",
            "vdsmUid",
        ],
    ),
    (
        "OVEHOSTED_VM",
        &[
            "OpenScapProfileName",
            "acceptDownloadEApplianceRPM",
            "applianceMem",
            "applianceVCpus",
            "applianceVersion",
            "applyOpenScapProfile",
            "automateVMShutdown",
            "cdromUUID",
            "cloudinitExecuteEngineSetup",
            "cloudinitHostIP",
            "cloudinitInstanceDomainName",
            "cloudinitVMETCHOSTS",
            "consoleUUID",
            "enableFips",
            "localVmUUID",
            "maxVCpus",
            "nicUUID",
            "rootSshAccess",
            "subst",
            "vmName",
            "vmUUID",
        ],
    ),
];

/// Every former key with what becomes of it.
pub fn former_keys() -> impl Iterator<Item = (String, Former)> {
    let unused = UNUSED
        .iter()
        .flat_map(|(part, names)| names.iter().map(move |name| (format!("{part}/{name}"), Former::Unused)));
    FORMER.iter().map(|(key, former)| ((*key).to_owned(), *former)).chain(unused)
}

/// Puts former keys under their present names.
pub(super) fn rename(answers: &mut Answers, warnings: &mut Vec<String>) {
    for (key, former) in FORMER {
        match former {
            Former::Renamed(present) => {
                if let Some(value) = answers.remove(key)
                    && answers.get(present).is_none_or(|value| *value == Value::None)
                {
                    answers.set(*present, value);
                }
            }
            Former::Elsewhere(advice) => {
                if answers.remove(key).is_some_and(|value| value != Value::None) {
                    warnings.push(format!("{key} has no effect: {advice}"));
                }
            }
            Former::Converted(_) | Former::Unused => {}
        }
    }
    convert_storage_type(answers);
    convert_nfs_version(answers, warnings);
    convert_firewall(answers);
    // The later releases know no other way to boot.
    let has_image = matches!(answers.get(keys::IMAGE), Some(Value::Text(image)) if !image.is_empty());
    if has_image && answers.get(keys::BOOT).is_none_or(|value| *value == Value::None) {
        answers.set(keys::BOOT, Value::Text("disk".to_owned()));
    }
}

/// The number of VDSM's storage types, which the first releases wrote.
fn convert_storage_type(answers: &mut Answers) {
    let Some(Value::Integer(number)) = answers.remove(STORAGE_TYPE) else { return };
    let kind = match number {
        1 => "nfs",
        2 => "fc",
        3 => "iscsi",
        6 => "directory",
        7 => "glusterfs",
        _ => return,
    };
    if answers.get(keys::DOMAIN_TYPE).is_none_or(|value| *value == Value::None) {
        answers.set(keys::DOMAIN_TYPE, Value::Text(kind.to_owned()));
    }
}

/// `auto`, `v3`, `v4`, `v4_0`, `v4_1`, `v4_2` beside the storage type `nfs`.
fn convert_nfs_version(answers: &mut Answers, warnings: &mut Vec<String>) {
    let Some(Value::Text(version)) = answers.remove(NFS_VERSION) else { return };
    if answers.get(keys::DOMAIN_TYPE) != Some(&Value::Text("nfs".to_owned())) {
        return;
    }
    let kind = match version.as_str() {
        "auto" | "" => return,
        "v3" => "nfs3",
        "v4" => "nfs4",
        "v4_0" | "v4_1" | "v4_2" => {
            let option = format!("vers={}", version.trim_start_matches('v').replace('_', "."));
            let options = match answers.get(keys::MOUNT_OPTIONS) {
                Some(Value::Text(given)) if !given.is_empty() => format!("{given},{option}"),
                _ => option,
            };
            answers.set(keys::MOUNT_OPTIONS, Value::Text(options));
            "nfs4"
        }
        _ => {
            warnings.push(format!("{NFS_VERSION}: {version:?} is unknown; the version is found by trying"));
            return;
        }
    };
    answers.set(keys::DOMAIN_TYPE, Value::Text(kind.to_owned()));
}

/// Its name, or nothing where the firewall was to be left alone.
fn convert_firewall(answers: &mut Answers) {
    let open = match answers.remove(FIREWALL_MANAGER) {
        Some(Value::Text(manager)) => !manager.is_empty(),
        _ => return,
    };
    if answers.get(keys::OPEN_FIREWALL).is_none() {
        answers.set(keys::OPEN_FIREWALL, Value::Bool(open));
    }
}
