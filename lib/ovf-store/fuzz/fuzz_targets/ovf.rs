//! Any text as an OVF: no panic, and a description made of it can be read again and says the same.
#![no_main]

use ha_config::VmConf;
use libfuzzer_sys::fuzz_target;
use ovf_store::EngineVm;

fuzz_target!(|text: &str| {
    if let Ok(vm) = EngineVm::parse(text) {
        let conf = vm.to_vm_conf("vm.conf").conf;
        let again = VmConf::parse("vm.conf", &conf.to_string()).expect("what we write can be read");
        assert_eq!(again.to_string(), conf.to_string());
        assert_eq!(again.mem_size().expect("the memory was checked"), vm.memory_mib);
    }
});
