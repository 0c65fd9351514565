"""Task balancing: how the losses, or their gradients, are weighed against each other at every step."""

from mtl_zoo.balancing._base import Balancing, GradientBalancing, GramBalancing, LossBalancing, RepresentationBalancing
from mtl_zoo.balancing._grid import static_grid
from mtl_zoo.balancing._registry import as_balancing, create_balancing, label_of, list_balancing, register_balancing
from mtl_zoo.balancing.aligned_mtl import AlignedMTL
from mtl_zoo.balancing.cagrad import CAGrad
from mtl_zoo.balancing.data_based import DataBased, label_frequencies
from mtl_zoo.balancing.db_mtl import DualBalancing
from mtl_zoo.balancing.dwa import DWA
from mtl_zoo.balancing.excess_mtl import ExcessMTL
from mtl_zoo.balancing.fair_grad import FairGrad
from mtl_zoo.balancing.famo import FAMO
from mtl_zoo.balancing.gls import GLS
from mtl_zoo.balancing.grad_drop import GradDrop
from mtl_zoo.balancing.grad_norm import GradNorm
from mtl_zoo.balancing.gradvac import GradVac
from mtl_zoo.balancing.imtl_g import IMTLG
from mtl_zoo.balancing.imtl_l import IMTLL
from mtl_zoo.balancing.loss_ratio import LossRatio
from mtl_zoo.balancing.metabalance import MetaBalance
from mtl_zoo.balancing.mgda import MGDA
from mtl_zoo.balancing.mgda_ub import MGDAUB
from mtl_zoo.balancing.moco import MoCo
from mtl_zoo.balancing.nash_mtl import NashMTL
from mtl_zoo.balancing.pcgrad import PCGrad
from mtl_zoo.balancing.rlw import RLW
from mtl_zoo.balancing.scheduled import Scheduled
from mtl_zoo.balancing.static import Static
from mtl_zoo.balancing.stch import STCH
from mtl_zoo.balancing.uncertainty import Uncertainty
from mtl_zoo.balancing.up_grad import UPGrad

__all__ = [
    "DualBalancing",
    "ExcessMTL",
    "GradDrop",
    "GradNorm",
    "MetaBalance",
    "MGDAUB",
    "MoCo",
    "RepresentationBalancing",
    "DWA",
    "FAMO",
    "GLS",
    "IMTLG",
    "IMTLL",
    "MGDA",
    "RLW",
    "STCH",
    "AlignedMTL",
    "Balancing",
    "CAGrad",
    "DataBased",
    "FairGrad",
    "GradVac",
    "GradientBalancing",
    "GramBalancing",
    "LossBalancing",
    "LossRatio",
    "NashMTL",
    "PCGrad",
    "Scheduled",
    "Static",
    "UPGrad",
    "Uncertainty",
    "as_balancing",
    "create_balancing",
    "label_frequencies",
    "label_of",
    "list_balancing",
    "register_balancing",
    "static_grid",
]
