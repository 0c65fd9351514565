"""The catalogue: one model a file."""

from mtl_zoo._halves import Halves, halves
from mtl_zoo.models._base import MultiTaskModel
from mtl_zoo.models._matching import parameter_count, parameter_matched
from mtl_zoo.models._registry import ModelInfo, create_model, list_models, model_info, register_model
from mtl_zoo.models._transfer import transfer
from mtl_zoo.models.adatt import AdaTT
from mtl_zoo.models.adatt_sp import AdaTTSp
from mtl_zoo.models.aitm import AITM
from mtl_zoo.models.cgc import CGC
from mtl_zoo.models.cross_stitch import CrossStitch
from mtl_zoo.models.dbmtl import DBMTL
from mtl_zoo.models.dcmt import DCMT
from mtl_zoo.models.escm2_dr import ESCM2DR
from mtl_zoo.models.escm2_ips import ESCM2IPS
from mtl_zoo.models.esm2 import ESM2
from mtl_zoo.models.esmm import ESMM
from mtl_zoo.models.hierarchical import Hierarchical
from mtl_zoo.models.home import HoME
from mtl_zoo.models.l2_constrained import L2Constrained
from mtl_zoo.models.m3oe import M3oE
from mtl_zoo.models.ml_mmoe import MLMMoE
from mtl_zoo.models.mmoe import MMoE
from mtl_zoo.models.mose import MoSE
from mtl_zoo.models.mtan import MTAN
from mtl_zoo.models.omoe import OMoE
from mtl_zoo.models.pepnet import PEPNet
from mtl_zoo.models.ple import PLE
from mtl_zoo.models.serial import Serial
from mtl_zoo.models.shared_bottom import SharedBottom
from mtl_zoo.models.single_task import SingleTask
from mtl_zoo.models.sluice import Sluice
from mtl_zoo.models.snr_aver import SNRAver
from mtl_zoo.models.snr_trans import SNRTrans
from mtl_zoo.models.star import STAR
from mtl_zoo.models.stem import STEM

__all__ = [
    "AITM",
    "CGC",
    "DBMTL",
    "DCMT",
    "ESCM2DR",
    "ESCM2IPS",
    "ESM2",
    "ESMM",
    "MTAN",
    "PLE",
    "STAR",
    "STEM",
    "AdaTT",
    "AdaTTSp",
    "CrossStitch",
    "Halves",
    "Hierarchical",
    "HoME",
    "L2Constrained",
    "M3oE",
    "MLMMoE",
    "MMoE",
    "MoSE",
    "ModelInfo",
    "MultiTaskModel",
    "OMoE",
    "PEPNet",
    "SNRAver",
    "SNRTrans",
    "Serial",
    "SharedBottom",
    "SingleTask",
    "Sluice",
    "create_model",
    "halves",
    "list_models",
    "model_info",
    "parameter_count",
    "parameter_matched",
    "register_model",
    "transfer",
]
