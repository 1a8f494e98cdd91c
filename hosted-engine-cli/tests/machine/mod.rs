//! A machine for network managers: namespaces of its own with a copy of this machine's file system, over which the
//! packages of `etc/sandbox/fetch-network-managers` are unpacked, and a network behind its card.
//!
//! ```text
//!  machine: eth0 ───── port  [ sw0: 10.0.0.254, 2001:db8::fe; dnsmasq ]  namespace "gateway"
//! ```
//!
//! Nothing of it is seen outside, and everything goes with it. /sys is read-only, by which both systemd-networkd and
//! `NetworkManager` know that there is no udev here.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use ha_tests::wait;

/// The card's hardware address.
pub const MAC: &str = "02:00:00:00:00:05";
/// The gateway's address.
pub const GATEWAY: &str = "10.0.0.254";
const ARCHIVE: &str = "/var/cache/ovirt-ha-sandbox/network-managers.tar";
/// How long a daemon may need to get somewhere.
const DEADLINE: Duration = Duration::from_secs(20);

/// Becomes the machine: the packages, this machine's example programs, and who reaps orphans.
const BOOT: &str = r#"
read -r pid rest </proc/self/stat
mount -t tmpfs machine /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay machine -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
tar -x --keep-directory-symlink -f "$0" -C /mnt/root
mkdir -p "/mnt/root$1"
mount --bind "$1" "/mnt/root$1"
cd /mnt/root
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --rbind /dev dev
for place in run tmp; do mount -t tmpfs machine $place; done
rm -rf etc/network/interfaces* etc/systemd/network etc/NetworkManager/system-connections var/lib/NetworkManager
mkdir -p etc/network/interfaces.d etc/systemd/network etc/NetworkManager/system-connections var/lib/NetworkManager \
    run/dbus storage
# Made by the packages' own scripts, which are not run.
actions=usr/share/polkit-1/actions/org.fedoraproject.FirewallD1
[ -e $actions.policy ] || ln -s /$actions.server.policy.choice $actions.policy
rm -f etc/resolv.conf
: >etc/resolv.conf
rm -f etc/machine-id
echo 0123456789abcdef0123456789abcdef >etc/machine-id
printf '127.0.0.1 localhost\n10.0.0.5 host1.example.test host1\n10.0.0.200 engine.example.test\n' >etc/hosts
hostname host1.example.test
exec chroot . sh -c 'dbus-daemon --system --fork --nopidfile 2>/dev/null && echo "$0"; sleep infinity & wait' "$pid"
"#;

/// A machine; off when dropped.
pub struct Machine {
    child: Child,
    /// Of its first process.
    pid: String,
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.ask("cat /run/*.log; ip address; ip route; ip -6 route; cat /run/leases"));
        }
        // Everything in it ends with its first process, and that with this one.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Machine {
    /// A machine whose card has no address yet. `programs` is a directory that it shares with this one.
    pub fn new(programs: &Path) -> Self {
        assert!(Path::new(ARCHIVE).exists(), "{ARCHIVE} is missing: etc/sandbox/fetch-network-managers");
        let mut child = Command::new("unshare")
            .args([
                "--net",
                "--mount",
                "--pid",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
                "sh",
                "-ec",
                BOOT,
                ARCHIVE,
            ])
            .arg(programs)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare starts; needs root");
        let mut pid = String::new();
        let said = child.stdout.take().expect("piped");
        BufReader::new(said).read_line(&mut pid).expect("text");
        assert!(!pid.is_empty(), "the machine does not start");
        let machine = Self { child, pid: pid.trim().to_owned() };
        for command in [
            "ip netns add gateway",
            "ip -n gateway link add sw0 type bridge stp_state 0 forward_delay 0",
            "ip -n gateway address add 10.0.0.254/24 dev sw0",
            "ip -n gateway address add 2001:db8::fe/64 dev sw0 nodad",
            "ip -n gateway link set sw0 up",
            "ip link set lo up",
        ] {
            machine.run(command);
        }
        machine.plug_in();
        machine
    }

    /// Puts the card in, as a boot finds it.
    pub fn plug_in(&self) {
        self.run(&format!("ip link add eth0 address {MAC} type veth peer name port netns gateway"));
        self.run("ip -n gateway link set port master sw0 up");
    }

    /// Runs a command of the shell.
    pub fn output(&self, command: &str) -> Output {
        let mut nsenter = Command::new("nsenter");
        nsenter
            .args(["--target", &self.pid, "--net", "--mount", "--pid", "--uts", "--ipc", "--root", "--wd"]);
        nsenter.args(["sh", "-c", command]).stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// One that must succeed; what it says on standard output.
    pub fn run(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command}: {output:?}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// What it says, whether it succeeds or not.
    pub fn ask(&self, command: &str) -> String {
        String::from_utf8_lossy(&self.output(command).stdout).into_owned()
    }

    /// Starts something that runs on, as `name`; what it says goes to /run/NAME.log.
    pub fn start(&self, name: &str, command: &str) {
        self.run(&format!(
            "sh -c 'echo $$ >/run/{name}.pid; exec {command}' >/run/{name}.log 2>&1 </dev/null &"
        ));
    }

    /// Ends it, and waits until it is gone.
    pub fn stop(&self, name: &str) {
        self.run(&format!("kill $(cat /run/{name}.pid)"));
        let is_gone = || self.output(&format!("kill -0 $(cat /run/{name}.pid)")).status.code() != Some(0);
        wait::until(&format!("the end of {name}"), DEADLINE, || is_gone().then_some(()));
    }

    /// Waits until a command says something in which `words` are.
    pub fn until(&self, command: &str, words: &str) -> String {
        wait::until(&format!("{words} from {command}"), DEADLINE, || {
            Some(self.ask(command)).filter(|said| said.contains(words))
        })
    }

    /// Gives out addresses to whoever asks, by DHCP and by router advertisements.
    pub fn serve_addresses(&self) {
        self.start(
            "dnsmasq",
            "ip netns exec gateway dnsmasq --keep-in-foreground --user=root --port=0 --interface=sw0 --bind-interfaces \
             --no-ping --dhcp-authoritative --dhcp-leasefile=/run/leases --enable-ra \
             --dhcp-range=10.0.0.50,10.0.0.99,120 --dhcp-option=3,10.0.0.254 --dhcp-option=6,10.0.0.53 \
             --dhcp-range=2001:db8::100,2001:db8::1ff,slaac,64,1h",
        );
    }
}

/// Packs what a guest needs: busybox, `ip`, a program with its libraries, and the kernel's modules for links.
const PACK: &str = r#"
mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/run" "$1/tmp" "$1/storage" "$1/etc" "$1/var/log" "$1/var/lib"
cp "$(command -v busybox)" "$1/bin/busybox"
for name in $(busybox --list | grep -vx busybox); do ln -s busybox "$1/bin/$name"; done
rm -f "$1/bin/ip"
cp -L "$(command -v ip)" "$1/bin/ip"
strip -o "$1/bin/network_steps" "$0"
cp -r /var/cache/ovirt-ha-sandbox/links "$1/links"
for library in $(ldd "$1/bin/ip" "$1/bin/network_steps" | sed -n 's,^[^/]*\(/[^ ]*\) (0x.*,\1,p' | sort -u); do
    mkdir -p "$1${library%/*}"
    cp -L "$library" "$1$library"
done
printf '127.0.0.1 localhost\n10.0.0.5 host1.example.test host1\n10.0.0.200 engine.example.test\n' >"$1/etc/hosts"
chmod 755 "$1/init"
cd "$1"
find . | cpio -o -H newc --quiet >../initramfs
"#;

/// Runs `program` in a guest with a kernel that has bonds and VLANs; what the guest says until it ends.
pub fn in_guest(program: &Path, init: &str, answers: &str) -> String {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let root = folder.path().join("root");
    std::fs::create_dir(&root).expect("a directory");
    std::fs::write(root.join("init"), init).expect("written");
    std::fs::write(root.join("answers.conf"), answers).expect("written");
    let packed = Command::new("sh").args(["-ec", PACK]).arg(program).arg(&root).output().expect("a shell");
    assert!(packed.status.success(), "{packed:?}");
    let output = Command::new("timeout")
        .args([
            "90",
            "qemu-system-x86_64",
            "-M",
            "pc",
            "-accel",
            "tcg",
            "-m",
            "900",
            "-nodefaults",
            "-display",
            "none",
        ])
        .args(["-no-reboot", "-serial", "stdio", "-kernel", "/var/cache/ovirt-ha-sandbox/vmlinuz", "-initrd"])
        .arg(folder.path().join("initramfs"))
        .args(["-append", "console=ttyS0 quiet panic=-1"])
        .stdin(Stdio::null())
        .output()
        .expect("QEMU starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("== end"), "{output:?}");
    said
}
