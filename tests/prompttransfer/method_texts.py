"""Settings under which each method is tested; every entry of METHODS has at least one."""

TEXTS = {
    "prompt": ("prompt:length=3",),
    "p-tuning": ("p-tuning:length=3,hidden=8", "p-tuning:length=3,encoder=mlp,hidden=8"),
    "lora": ("lora:rank=2", "lora:rank=3,alpha=5,stabilised=true"),
    "prefix": ("prefix:length=3,hidden=8",),
    "p-tuning-v2": ("p-tuning-v2:length=3",),
    "houlsby": ("houlsby:bottleneck=4", "houlsby:bottleneck=4,activation=tanh"),
    "pfeiffer": ("pfeiffer:reduction=4",),
    "probe": ("probe",),
}
